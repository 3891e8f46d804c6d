"""Any of timm's optimizers: ``optimizer=timm optimizer.name=adopt``."""

from difflib import get_close_matches
from typing import Any

from torch.optim import Optimizer

from core.errors import ConfigError


def timm_optimizer(
    params: Any, name: str, lr: float, weight_decay: float = 0.0, **settings: Any
) -> Optimizer:
    """Create timm's optimizer ``name``; further settings go to its constructor.

    Raises:
        ConfigError: timm has no optimizer of that name.
    """
    from timm.optim import create_optimizer_v2, list_optimizers

    if name not in list_optimizers():
        nearest = get_close_matches(name, [str(known) for known in list_optimizers()], n=3)
        hint = f"; near it: {', '.join(nearest)}" if nearest else ""
        raise ConfigError(f"optimizer.name={name}: timm has no optimizer of this name{hint}")
    # momentum only where it was asked for: timm's own default of 0.9 would reach every optimizer
    return create_optimizer_v2(params, opt=name, lr=lr, weight_decay=weight_decay, **settings)
