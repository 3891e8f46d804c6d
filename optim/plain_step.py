"""An optimizer's step by itself, without what torch wraps around it."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

WRAPPER = Optimizer.profile_hook_step(lambda self: None).__code__  # of what torch puts around steps


def plain_step(optimizer: Optimizer) -> Callable[[], Any]:
    """``optimizer.step``, without its label for torch's profiler where nobody profiles.

    Making the label takes as long as updating a small model does (benchmarks/speed.md). While a
    profiler runs, with hooks of the optimizer's or of all optimizers, and where somebody else has
    put another step in its place, it is ``optimizer.step()``.
    """
    wrapped: Any = type(optimizer).step
    if getattr(wrapped, "__code__", None) is not WRAPPER:
        return optimizer.step
    plain = wrapped.__wrapped__

    def step() -> Any:
        is_watched = (
            torch.autograd.profiler._is_profiler_enabled
            or optimizer._optimizer_step_pre_hooks
            or optimizer._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
            or "step" in vars(optimizer)
            or type(optimizer).step is not wrapped
        )
        return optimizer.step() if is_watched else plain(optimizer)

    return step
