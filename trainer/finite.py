"""Numbers that go wrong: losses and gradients that are not finite, and updates that are taken back.

``trainer.on_nonfinite`` decides. ``raise`` and ``stop`` end training at the first such number;
``skip`` leaves its update out, as fp16's loss scaling does whatever the policy.
"""

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor

from core.collectives import agree
from core.errors import Diverged
from objectives.base import Objective
from trainer.phase import Phase

ONE = torch.ones(1, dtype=torch.float32)  # the factor of an unscaling that changes nothing
MAX_SKIPS_IN_A_ROW = 100  # then the run is lost, not unlucky


class Guard:
    """Looks at losses and gradients, every one where that is free: on one process on the CPU.

    Elsewhere only the means that are logged are looked at, and under ``skip`` everything.

    Args:
        skips: an update that is not finite is left out; else it raises.
        scales: fp16's scaler looks at the gradients itself, and skips.
        reads_are_free: reading a value back stalls no device.
    """

    def __init__(self, skips: bool, scales: bool, reads_are_free: bool) -> None:
        self.skips = skips
        self.scales = scales
        self.reads_are_free = reads_are_free
        self.losses: list[Tensor] = []  # of the phase at work, under skip

    def check_loss(self, loss: Tensor, phase: Phase) -> None:
        """Of one micro-batch. Raises: Diverged."""
        if self.skips:
            self.losses.append(loss.detach())
        elif self.reads_are_free and not self.scales:
            check(loss.item(), f"the loss of phase {phase.name}")

    def may_apply(self, grad_norm: Tensor | None, phase: Phase) -> bool:
        """Whether ``phase`` may step; the same on every process. Raises: Diverged."""
        if self.skips:
            assert grad_norm is not None
            values = torch.stack([grad_norm.float(), *(loss.float() for loss in self.losses)])
            self.losses.clear()
            return not agree(not bool(values.isfinite().all()))
        if self.reads_are_free and not self.scales:
            if grad_norm is None:
                is_finite = gradients_are_finite(phase.parameters)
            else:
                is_finite = math.isfinite(grad_norm.item())
            if not is_finite:
                raise Diverged(f"the gradient of phase {phase.name} is not finite")
        return True

    def check_means(self, means: dict[str, float]) -> None:
        """Of what is logged. Raises: Diverged."""
        for name, value in means.items():
            if name.endswith("loss") and not self.skips:
                check(value, f"the mean {name}")

    def check_skips(self, in_a_row: int) -> None:
        """Raises: Diverged."""
        if in_a_row >= MAX_SKIPS_IN_A_ROW:
            raise Diverged(f"{in_a_row} updates in a row had losses or gradients not finite")


class Undo:
    """Takes back an update, so that it is made by all phases or by none.

    Buffers change in the forward pass, such as the statistics of batch norms. Of several phases,
    one may have stepped when the gradient of another turns out not to be finite.
    """

    def __init__(self, objective: Objective, phases: list[Phase], is_needed: bool) -> None:
        self.is_needed = is_needed
        self.objective = objective
        self.phases = phases if len(phases) > 1 else []
        self.before: list[tuple[Tensor, Tensor]] = []
        self.optimizers: list[dict] = []

    def remember(self) -> None:
        """Before every update."""
        if not self.is_needed:
            return
        weights = [p for phase in self.phases for p in phase.parameters]
        self.before = [(t, t.detach().clone()) for t in (*self.objective.buffers(), *weights)]
        self.optimizers = [copy.deepcopy(phase.optimizer.state_dict()) for phase in self.phases]

    @torch.no_grad()
    def take_back(self) -> None:
        """Everything is as when it was remembered."""
        for current, before in self.before:
            current.copy_(before)
        for phase, state in zip(self.phases, self.optimizers, strict=True):
            phase.optimizer.load_state_dict(state)


def check(value: float, what: str) -> None:
    """Raises: Diverged."""
    if not math.isfinite(value):
        raise Diverged(f"{what} is {value}")


def gradients_are_finite(parameters: Iterable[Tensor]) -> bool:
    """In the one pass of torch's ``GradScaler``, at a quarter of the cost of a norm.

    It multiplies them by 1.
    """
    gradients = [gradient for p in parameters if (gradient := p.grad) is not None]
    found = torch.zeros(1, dtype=torch.float32)
    try:
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, ONE)
    except RuntimeError:  # it does not take sparse, complex or expanded ones
        parts = [g._values() if g.is_sparse else g for g in gradients]
        return all(bool(part.isfinite().all()) for part in parts)
    return not found.item()


def all_finite(tensors: dict[str, Tensor]) -> bool:
    return all(bool(t.isfinite().all()) for t in tensors.values() if t.is_floating_point())
