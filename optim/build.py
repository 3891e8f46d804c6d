"""Builds optimizers and schedules from their config nodes."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from core.errors import ConfigError
from core.instantiate import instantiate, resolve
from core.schema import NonNegative, check_value
from optim.param_groups import parameter_groups
from optim.schedules import Evaluations, Horizon

NONE_YET = Evaluations()
ROUNDING = 1e-12  # tolerated rounding error below 0 of a scheduled value

# substring of an optimizer's name -> flag that it reads from its parameter groups
GROUP_FLAGS = {
    "muon": "use_muon",
    "adago": "use_muon",
    "lamb": "always_adapt",
    "lars": "always_adapt",
    "matricesandrest": "is_matrix",
}
TORCH_MUON = "torch.optim.Muon"  # updates every parameter it is given; reads no flag


@dataclass(frozen=True)
class Schedule:
    """A setting, usually the learning rate, as a function of the step and its initial value."""

    function: Callable[..., float]
    sees_evaluations: bool
    where: str = "scheduler"  # dotted name of the config node, for messages

    def __call__(self, step: int, base: float, evaluations: Evaluations = NONE_YET) -> float:
        """The value at ``step``; raises ConfigError if it is NaN or negative (beyond rounding)."""
        value = self.value(step, base, evaluations)
        if not value > -ROUNDING:
            raise ConfigError(
                f"{self.where} changes {base:g} to {value:g} at update {step + 1}: it should stay "
                "at 0 or more"
            )
        return value

    def value(self, step: int, base: float, evaluations: Evaluations = NONE_YET) -> float:
        """The value at ``step``, unchecked."""
        further = {"evaluations": evaluations} if self.sees_evaluations else {}
        return self.function(step, base, **further)


def build_optimizer(
    settings: dict[str, Any], module: nn.Module, grouping: dict[str, Any], where: str = "optimizer"
) -> Optimizer:
    """Build an optimizer over ``module``'s parameter groups.

    Args:
        settings: the config's ``optimizer`` node.
        grouping: the config's ``param_groups`` node, the same for every optimizer.
        where: dotted name of the optimizer node, for messages.

    Raises:
        ConfigError: if a setting is invalid.
    """
    if "lr" not in settings:
        raise ConfigError(f"{where}.lr is missing: every optimizer needs a learning rate")
    weight_decay = settings.get("weight_decay", 0.0)
    check_value(NonNegative, settings["lr"], f"{where}.lr")
    check_value(NonNegative, weight_decay, f"{where}.weight_decay")
    for part, node in settings.items():  # inner optimizers
        for key in ("lr", "weight_decay"):
            if isinstance(node, dict) and key in node:
                raise ConfigError(f"{where}.{part}.{key} has no effect: {part} uses {where}.{key}")
    flags = group_flags(settings)
    if "weight_decay" not in settings:  # a few optimizers take only one group
        if any(rule.get("weight_decay") for rule in grouping.get("rules", ())):
            raise ConfigError(f"param_groups.rules: {where} has no weight_decay to change")
        grouping = {**grouping, "decay_norms_and_biases": True}
    groups = parameter_groups(module, weight_decay, settings["lr"], **grouping, flags=flags)
    if not groups:
        raise ConfigError(f"{where}: the model has no trainable parameters")
    rest_key = next((key for key in ("rest_lr", "adamw_lr") if settings.get(key)), None)
    if rest_key and settings["lr"] == 0 and "lr" in groups[0]:
        raise ConfigError(
            f"{where}.lr=0 with {where}.{rest_key} does not work with param_groups.layer_decay or "
            "lr_scale in param_groups.rules: set a rate above 0, or freeze by a rule"
        )
    if settings["_target_"] == TORCH_MUON and any(p.ndim != 2 for g in groups for p in g["params"]):
        raise ConfigError(
            f"{where}: torch's Muon takes only matrices: use optimizer=torch_muon, which leaves "
            "all other parameters to AdamW"
        )
    return instantiate(settings, where, params=groups)


def group_flags(settings: dict[str, Any]) -> list[str]:
    """The flags that the optimizer reads from its groups and ``settings`` do not fix."""
    if settings["_target_"] == TORCH_MUON:
        return []
    name = str(settings.get("name") or settings["_target_"]).rpartition(".")[2].lower()
    flags = [flag for word, flag in GROUP_FLAGS.items() if word in name]
    return [flag for flag in flags if flag not in settings]


def build_schedule(
    settings: dict[str, Any], horizon: Horizon, where: str = "scheduler"
) -> Schedule:
    """Build the schedule of a config node.

    Raises:
        ConfigError: if a setting is invalid, or ``_target_`` is not a schedule function.
    """
    target = resolve(settings.get("_target_"), f"{where}._target_")
    parameters = inspect.signature(target).parameters
    if inspect.isclass(target) or not {"step", "base_lr", "horizon"} <= set(parameters):
        raise ConfigError(
            f"{where}._target_={settings['_target_']} is not a schedule, a function "
            "(step, base_lr, horizon, ...) -> lr; see optim/schedules.py"
        )
    later = ("step", "base_lr", "evaluations")
    function = instantiate({**settings, "_partial_": True}, where, later=later, horizon=horizon)
    schedule = Schedule(function, "evaluations" in parameters, where)
    for step in (0, horizon.total_steps - 1):  # report invalid settings before training
        schedule.value(step, 1.0)
    return schedule
