"""An optimizer's step by itself, without what torch wraps around it."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks


def plain_step(optimizer: Optimizer) -> Callable[[], Any]:
    """``optimizer.step``, without its label for torch's profiler where nobody profiles.

    Making the label takes as long as updating a small model does (benchmarks/speed.md). While a
    profiler runs, or with hooks of the optimizer's or of all optimizers, it is torch's own.
    """
    wrapped = type(optimizer).step
    if not getattr(wrapped, "hooked", False) or "step" in vars(optimizer):
        return optimizer.step  # built otherwise: not torch's wrapper, or not only
    plain = wrapped.__wrapped__  # type: ignore[attr-defined]

    def step() -> Any:
        has_listeners = (
            torch.autograd.profiler._is_profiler_enabled
            or optimizer._optimizer_step_pre_hooks
            or optimizer._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
        )
        return optimizer.step() if has_listeners else plain(optimizer)

    return step
