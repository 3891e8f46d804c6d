"""Optimizers around another one: ``optimizer=lookahead``, ``optimizer=sam``.

The inner one is a node of the config with ``_partial_: true``, without a rate and a decay: it takes
those of the outer one.
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
    """Every ``k`` updates, go back to a share ``alpha`` of the way (arXiv:1907.08610).

    timm's: the slow weights begin as those after the first ``k`` updates.
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
    """Step by the gradient at the worst point within ``rho`` (SAM, arXiv:2010.01412).

    Two evaluations an update. ``adaptive``: ASAM (arXiv:2102.11600), with a ``rho`` some ten times
    as large.
    """
    from pytorch_optimizer import SAM

    return SAM(params, base_optimizer, rho=rho, adaptive=adaptive, lr=lr, weight_decay=weight_decay)
