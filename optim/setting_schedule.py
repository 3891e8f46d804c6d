"""Schedules of momentum and weight decay."""

from torch.optim import Optimizer

from core.errors import ConfigError
from optim.build import Schedule
from optim.schedules import Evaluations


class SettingSchedule:
    """Schedules one setting of an optimizer's parameter groups.

    Args:
        name: ``momentum`` (``betas[0]`` in optimizers without it) or ``weight_decay``. Groups
            without the setting do not change.
        schedule: a function of the step and the initial value. An initial value of 0, such as the
            weight decay of biases, stays 0.

    Raises:
        ConfigError: if no group has the setting or all have 0; by :meth:`set`, if momentum reaches
            1.
    """

    def __init__(self, optimizer: Optimizer, name: str, schedule: Schedule) -> None:
        self.name = name
        self.schedule = schedule
        self.optimizer = optimizer
        groups = optimizer.param_groups
        has_name = any(name in group for group in groups)
        self.key = "betas" if name == "momentum" and not has_name else name
        self.bases = [self.value(group) for group in groups]
        if not any(self.bases):
            raise ConfigError(
                f"{name}_schedule: {type(optimizer).__name__} has no {name} to change"
            )

    def value(self, group: dict) -> float:
        current = group.get(self.key, 0.0)
        return float(current[0] if isinstance(current, tuple | list) else current)

    def set(self, step: int, evaluations: Evaluations) -> None:
        values = {base: self.schedule(step, base, evaluations) for base in set(self.bases) if base}
        for group, base in zip(self.optimizer.param_groups, self.bases, strict=True):
            if not base:
                continue
            value = values[base]
            if self.name == "momentum" and value >= 1:
                raise ConfigError(
                    f"momentum_schedule changes {base:g} to {value:g} at update {step + 1}: it "
                    "should stay below 1"
                )
            group[self.key] = (value, *group["betas"][1:]) if self.key == "betas" else value

    @property
    def now(self) -> float:
        """The largest current value of all groups, for logging."""
        return max(self.value(group) for group in self.optimizer.param_groups)
