"""Any of timm's optimizers: ``optimizer=timm optimizer.name=adopt``."""

from difflib import get_close_matches
from typing import Any

from torch.optim import Optimizer

from core.errors import ConfigError

MOMENTUM = 0.9  # what timm gives every optimizer that has one


def timm_optimizer(
    params: Any, name: str, lr: float, weight_decay: float = 0.0, **settings: Any
) -> Optimizer:
    """Create timm's optimizer ``name``; further settings go to its constructor.

    With the defaults that timm gives the name, and its momentum of 0.9 where there is a momentum.
    Its own ``create_optimizer_v2`` drops settings that the optimizer does not have.

    Raises:
        ConfigError: timm has no optimizer of that name.
    """
    from timm.optim import get_optimizer_class, get_optimizer_info, list_optimizers

    if name not in list_optimizers():
        nearest = get_close_matches(name, [str(known) for known in list_optimizers()], n=3)
        hint = f"; near it: {', '.join(nearest)}" if nearest else ""
        raise ConfigError(f"optimizer.name={name}: timm has no optimizer of this name{hint}")
    info = get_optimizer_info(name)
    defaults = {"momentum": MOMENTUM} if info.has_momentum else {}
    settings = {**defaults, **(info.defaults or {}), **settings}
    build: Any = get_optimizer_class(name, bind_defaults=False)
    return build(params, lr=lr, weight_decay=weight_decay, **settings)
