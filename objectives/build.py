"""Builds the objective from its config."""

from typing import Any

from torch import nn

from core.errors import ConfigError
from core.instantiate import instantiate
from objectives.base import Objective


def build_objective(settings: dict[str, Any], model: nn.Module, spec: Any) -> Objective:
    """The objective of ``settings``, wrapping ``model`` for data that ``spec`` describes."""
    objective = instantiate(settings, "objective", model=model, spec=spec)
    if not isinstance(objective, Objective):
        raise ConfigError(f"objective._target_={settings['_target_']} is not an objective")
    return objective
