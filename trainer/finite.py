"""Numbers that go wrong: losses and gradients that are not finite, and undoing an update.

``trainer.on_nonfinite`` decides. ``raise`` and ``stop`` end training at the first such number;
``skip`` leaves its update out, as fp16's loss scaling does whatever the policy.
"""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from core.collectives import agree
from core.errors import Diverged
from core.progress import Progress
from objectives.base import Objective
from trainer.phase import Phase

MAX_SKIPS_IN_A_ROW = 100  # then the run is lost, not unlucky


@dataclass(frozen=True)
class FiniteCheck:
    """Checks losses and gradients, every one of them where that is free.

    Elsewhere only the means that are logged are checked, and with ``skips`` everything.

    Args:
        skips: an update that is not finite is left out; else it ends the run.
        reads_are_free: reading a value back stalls no device: one process, on the CPU.
        is_scaled: fp16's scaler checks the gradients itself, and skips whatever the policy.
    """

    skips: bool
    reads_are_free: bool
    is_scaled: bool

    @property
    def may_skip(self) -> bool:
        return self.skips or self.is_scaled

    def check_update(self, phase: str, losses: list[Tensor], grad_norm: Tensor | None) -> bool:
        """Whether the optimizer of ``phase`` may step; the same on every process.

        Raises:
            Diverged: a number is not finite, and updates are not skipped.
        """
        values = losses if grad_norm is None else [*losses, grad_norm]
        if self.skips:
            return not agree(not all_finite(values))
        if self.reads_are_free and not self.is_scaled:
            for loss in losses:
                check_finite(loss.item(), f"the loss of phase {phase}")
            if grad_norm is not None:
                check_finite(grad_norm.item(), f"the gradient norm of phase {phase}")
        return True

    def check_means(self, means: dict[str, float]) -> None:
        """Raises: Diverged: the mean of a loss is not finite, and updates are not skipped."""
        for name, value in means.items():
            if name.endswith("loss") and not self.skips:
                check_finite(value, f"the mean {name}")


class Snapshot:
    """What an update may have changed by the time it turns out not to be finite.

    The forward pass changes buffers, such as the statistics of batch norms. Of several phases, one
    may have stepped before the gradient of another is known, so their weights and optimizers'
    states are copied as well.
    """

    def __init__(self, objective: Objective, phases: list[Phase]) -> None:
        self.phases = phases if len(phases) > 1 else []
        weights = [p for phase in self.phases for p in phase.parameters]
        self.tensors = [(t, t.detach().clone()) for t in (*objective.buffers(), *weights)]
        self.optimizers = [copy.deepcopy(phase.optimizer.state_dict()) for phase in self.phases]

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back, in place."""
        for current, before in self.tensors:
            current.copy_(before)
        for phase, state in zip(self.phases, self.optimizers, strict=True):
            phase.optimizer.load_state_dict(state)


def count_skip(progress: Progress) -> None:
    """An update was left out. Raises: Diverged: too many in a row."""
    progress.skipped += 1
    progress.skipped_in_a_row += 1
    if progress.skipped_in_a_row >= MAX_SKIPS_IN_A_ROW:
        raise Diverged(f"{MAX_SKIPS_IN_A_ROW} updates in a row had losses or gradients not finite")


def advice(error: Diverged, phases: list[Phase], step: int, last: Path) -> Diverged:
    """What went wrong, when, and what can be done.

    Args:
        step: updates made.
        last: the last good checkpoint, if it was written.
    """
    rates = ", ".join(f"{phase.lr:.3g}" for phase in phases)
    return Diverged(
        f"{error} after {step} updates (lr {rates}); last good checkpoint: "
        f"{last if last.exists() else 'none'}. Try a lower learning rate, a warm-up or "
        "clip_grad_norm=1"
    )


def check_finite(value: float, what: str) -> None:
    """Raises: Diverged: the number is infinite or NaN."""
    if not math.isfinite(value):
        raise Diverged(f"{what} is {value}")


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Of one device, from which one value is read."""
    found = [t.isfinite().all() for t in tensors if t.is_floating_point()]
    return not found or bool(torch.stack(found).all())
