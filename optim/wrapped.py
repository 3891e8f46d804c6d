"""Optimizers that wrap another one: ``optimizer=lookahead``, ``optimizer=sam``.

The base optimizer is a config node with ``_partial_: true``. It has no learning rate and weight
decay of its own but takes those of the wrapper.
"""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


def lookahead(
    params: Any,
    base_optimizer: Callable[..., Optimizer],
    lr: float,
    weight_decay: float = 0.0,
    k: int = 6,
    alpha: float = 0.5,
) -> Optimizer:
    """Lookahead: every ``k`` updates, move the slow weights by ``alpha`` (arXiv:1907.08610).

    timm's version, whose slow weights start as the weights after the first ``k`` updates.
    """
    from timm.optim import Lookahead

    optimizer = base_optimizer(params, lr=lr, weight_decay=weight_decay)
    return Lookahead(optimizer, alpha=alpha, k=k)


def sam(
    params: Any,
    base_optimizer: Any,
    lr: float,
    weight_decay: float = 0.0,
    rho: float = 0.05,
    adaptive: bool = False,
) -> Optimizer:
    """Step by the gradient at the worst point within radius ``rho`` (SAM, arXiv:2010.01412).

    Takes two forward and backward passes per update. ``adaptive`` is ASAM (arXiv:2102.11600), whose
    ``rho`` is about ten times as large.
    """
    from pytorch_optimizer import SAM

    return SAM(params, base_optimizer, rho=rho, adaptive=adaptive, lr=lr, weight_decay=weight_decay)
