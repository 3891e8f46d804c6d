"""Any of timm's optimizers: ``optimizer=timm optimizer.name=adopt``."""

from difflib import get_close_matches
from typing import Any

from torch.optim import Optimizer

from core.errors import ConfigError

MOMENTUM = 0.9  # timm's default for every optimizer with momentum


def timm_optimizer(
    params: Any, name: str, lr: float, weight_decay: float = 0.0, **settings: Any
) -> Optimizer:
    """Create timm's optimizer ``name``; further settings go to its constructor.

    Applies timm's defaults for the name. Unlike ``create_optimizer_v2``, it does not drop settings
    that the optimizer does not have.

    Raises:
        ConfigError: if timm has no such optimizer.
    """
    from timm.optim import get_optimizer_class, get_optimizer_info, list_optimizers

    if name not in list_optimizers():
        nearest = get_close_matches(name, [str(known) for known in list_optimizers()], n=3)
        hint = f"; closest: {', '.join(nearest)}" if nearest else ""
        raise ConfigError(f"optimizer.name={name}: timm has no optimizer of this name{hint}")
    info = get_optimizer_info(name)
    defaults = {"momentum": MOMENTUM} if info.has_momentum else {}
    settings = {**defaults, **(info.defaults or {}), **settings}
    build: Any = get_optimizer_class(name, bind_defaults=False)
    return build(params, lr=lr, weight_decay=weight_decay, **settings)
