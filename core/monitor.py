"""Whether the monitored metric is maximized or minimized, from the config or the objective.

Nothing is built, and torch is imported only to look up the objective.
"""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_type_hints

from core.errors import ConfigError
from core.job import Job
from core.progress import Monitor


def monitor_of(config: Mapping[str, Any]) -> Monitor:
    """The config's ``monitor``, with ``monitor_mode: auto`` resolved to max or min.

    The mode is max if the objective does not know the metric.

    Raises:
        ConfigError: if ``monitor_mode`` contradicts the objective.
    """
    name, mode = str(config["monitor"]), str(config["monitor_mode"])
    objective = objective_class(str(config["objective"].get("_target_")))
    objective_mode = None
    if hasattr(objective, "mode_of"):  # others are refused when built
        objective_mode = objective.mode_of(name.partition("/")[2], config["objective"])
    if mode == "auto":
        return Monitor(name, objective_mode or "max")
    if objective_mode is not None and mode != objective_mode:
        better = "lower" if objective_mode == "min" else "higher"
        raise ConfigError(
            f"monitor_mode={mode}, but for {objective.__name__} a {better} {name} is better: leave "
            "monitor_mode out"
        )
    return Monitor(name, mode)


def with_monitor(config: dict[str, Any], job: Job) -> tuple[dict[str, Any], Job, Monitor]:
    """Resolve ``monitor_mode`` in the config and ``job.recordable``; also returns the monitor."""
    monitor = monitor_of(config)
    mode = {"monitor_mode": monitor.mode}
    return config | mode, replace(job, recordable=(job.recordable or config) | mode), monitor


def worst_value(config: Mapping[str, Any]) -> float:
    """The value that a failed job returns to its sweep."""
    try:
        return monitor_of(config).worst
    except Exception:  # the config itself may be wrong
        return Monitor("", "max").worst


def objective_class(target: str) -> type:
    """The class ``objective._target_``, or a function's return annotation, else ``object``."""
    from core.instantiate import resolve  # imports torch

    resolved = resolve(target, "objective._target_")
    return resolved if inspect.isclass(resolved) else get_type_hints(resolved).get("return", object)
