"""Which way the monitored metric is better: by the objective's word, unless the config says it.

Nothing is built, and torch is imported only when the objective has to be asked.
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

    The mode is max for a metric that the objective does not know.

    Raises:
        ConfigError: ``monitor_mode`` contradicts the objective.
    """
    name, mode = str(config["monitor"]), str(config["monitor_mode"])
    objective = objective_class(str(config["objective"].get("_target_")))
    word = None
    if hasattr(objective, "mode_of"):  # what is no objective is refused where it is built
        word = objective.mode_of(name.partition("/")[2], config["objective"])
    if mode == "auto":
        return Monitor(name, word or "max")
    if word is not None and mode != word:
        better = "lower" if word == "min" else "higher"
        raise ConfigError(
            f"monitor_mode={mode}, but to {objective.__name__} a {better} {name} is better: leave "
            "monitor_mode out"
        )
    return Monitor(name, mode)


def with_monitor(config: dict[str, Any], job: Job) -> tuple[dict[str, Any], Job, Monitor]:
    """The monitor, and its mode in the config and in the recordable one that the job holds."""
    monitor = monitor_of(config)
    mode = {"monitor_mode": monitor.mode}
    return config | mode, replace(job, recordable=(job.recordable or config) | mode), monitor


def worst_value(config: Mapping[str, Any]) -> float:
    """What a job that failed counts for in a sweep."""
    try:
        return monitor_of(config).worst
    except Exception:  # the config is what failed
        return Monitor("", "max").worst


def objective_class(target: str) -> type:
    """The class that ``objective._target_`` names, or that the function there says it returns.

    ``object`` where it says nothing.
    """
    from core.instantiate import resolve  # imports torch

    found = resolve(target, "objective._target_")
    return found if inspect.isclass(found) else get_type_hints(found).get("return", object)
