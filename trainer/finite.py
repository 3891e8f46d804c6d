"""Detect losses and gradients that are not finite, and undo the update that has them.

``trainer.on_nonfinite`` sets the policy: ``raise`` and ``stop`` end training at the first such
value, ``skip`` skips the update. fp16 loss scaling skips it under any policy.
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

MAX_SKIPS_IN_A_ROW = 100  # then the run has diverged


@dataclass(frozen=True)
class FiniteCheck:
    """Checks losses and gradients: in every update if ``skips`` is set or reading them is free.

    Otherwise only the logged means are checked, to avoid host syncs.

    Args:
        skips: skip an update that is not finite, instead of ending the run.
        reads_are_free: reading a value stalls no device: a single process on the CPU.
        is_scaled: fp16's scaler checks the gradients itself and skips under any policy.
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
            Diverged: if a loss or gradient is not finite, and updates are not skipped.
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
        """Raise Diverged if a mean loss is not finite, unless updates are skipped."""
        for name, value in means.items():
            if name.endswith("loss") and not self.skips:
                check_finite(value, f"the mean {name}")


class Snapshot:
    """A copy of everything an update may change before it turns out not to be finite.

    The forward pass changes buffers, such as batch norm statistics. With several phases, one may
    step before the gradients of another are known, so weights and optimizer states are copied, too.
    """

    def __init__(self, objective: Objective, phases: list[Phase]) -> None:
        self.phases = phases if len(phases) > 1 else []
        weights = [p for phase in self.phases for p in phase.parameters]
        self.tensors = [(t, t.detach().clone()) for t in (*objective.buffers(), *weights)]
        self.optimizers = [copy.deepcopy(phase.optimizer.state_dict()) for phase in self.phases]

    @torch.no_grad()
    def restore(self) -> None:
        """Restore everything in place."""
        for current, before in self.tensors:
            current.copy_(before)
        for phase, state in zip(self.phases, self.optimizers, strict=True):
            phase.optimizer.load_state_dict(state)


def count_skip(progress: Progress) -> None:
    """Count a skipped update. Raises Diverged after too many in a row."""
    progress.skipped += 1
    progress.skipped_in_a_row += 1
    if progress.skipped_in_a_row >= MAX_SKIPS_IN_A_ROW:
        raise Diverged(f"{MAX_SKIPS_IN_A_ROW} updates in a row had non-finite losses or gradients")


def advice(error: Diverged, phases: list[Phase], step: int, last: Path) -> Diverged:
    """Extend ``error`` with the step, the learning rates, the last checkpoint and what to try.

    Args:
        step: number of updates made.
        last: path of the last checkpoint, which may not exist.
    """
    rates = ", ".join(f"{phase.lr:.3g}" for phase in phases)
    return Diverged(
        f"{error} after {step} updates (lr {rates}); last good checkpoint: "
        f"{last if last.exists() else 'none'}. Try a lower learning rate, a warm-up or "
        "clip_grad_norm=1"
    )


def check_finite(value: float, what: str) -> None:
    """Raise Diverged if ``value`` is infinite or NaN."""
    if not math.isfinite(value):
        raise Diverged(f"{what} is {value}")


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all tensors, on one device, are finite. Reads one value back."""
    flags = [t.isfinite().all() for t in tensors if t.is_floating_point()]
    return not flags or bool(torch.stack(flags).all())
