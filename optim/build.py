"""Optimizers and schedules from their config nodes."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer

from core.errors import ConfigError
from core.instantiate import instantiate
from optim.param_groups import parameter_groups
from optim.schedules import Horizon

Schedule = Callable[[int, float], float]


def build_optimizer(
    settings: dict[str, Any], module: nn.Module, grouping: dict[str, Any], where: str = "optimizer"
) -> Optimizer:
    """The optimizer that ``settings`` describe, over ``module``'s parameters in groups.

    Args:
        settings: the config's ``optimizer`` node.
        grouping: the config's ``param_groups`` node, the same for every optimizer.
        where: dotted name of the node, for messages.
    """
    if "lr" not in settings:
        raise ConfigError(f"{where}.lr is missing: every optimizer is given a learning rate")
    weight_decay = settings.get("weight_decay", 0.0)
    for key in ("lr", "weight_decay"):
        value = settings.get(key, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise ConfigError(f"{where}.{key}={value} should be a number of at least 0")
    groups = parameter_groups(module, weight_decay, settings.get("lr", 0.0), **grouping)
    if not groups:
        raise ConfigError(f"{where}: the model has no trainable parameters")
    return instantiate(settings, where, params=groups)


def build_schedule(
    settings: dict[str, Any], horizon: Horizon, where: str = "scheduler"
) -> Schedule:
    """The schedule that ``settings`` describe, as a function ``(step, base_lr) -> lr``."""
    schedule = instantiate({**settings, "_partial_": True}, where)
    schedule = partial(schedule, horizon=horizon)
    schedule(0, 1.0)  # settings that do not fit the horizon are reported before any training
    return schedule
