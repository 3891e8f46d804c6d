"""Whether a config describes the same run as a recorded one, and whether that run has finished.

Nothing here imports torch, so that a sweep skips finished jobs at once.
"""

import math
from typing import Any

from core.errors import ConfigError
from core.job import Job
from core.progress import Monitor
from core.ranks import announce
from core.records import read_record
from core.run_directory import read_config
from core.schema import dotted_keys, unknown_key

# settings that may change when a run is resumed: none of these changes the computation ...
FREE = (
    "resume",
    "resume_changes",
    "wandb",
    "loggers",
    "data.root",
    "data.num_workers",
    "data.eval_batch_size",
    "trainer.devices",
    "trainer.accelerator",
    "trainer.num_nodes",
    "trainer.rdzv_endpoint",
    "trainer.max_restarts",
    "trainer.strategy",
    "trainer.timeout_seconds",
    "trainer.num_threads",
    "trainer.log_every_steps",
    "trainer.eval_train_samples",
    "trainer.monitor_layers",
    "trainer.profile_steps",
    "trainer.checkpoint",
    "trainer.checkpoint_every_steps",
    "trainer.checkpoint_every_seconds",
    "trainer.progress",
)
# ... and these only decide when it ends and what follows: changing one continues a finished run
ENDS = (
    "trainer.limit_train_steps",
    "trainer.target",
    "trainer.stop_at_target",
    "trainer.early_stopping_patience",
    "trainer.test",
)
FINISHED = ("completed", "stopped", "diverged", "pruned")
SHOWN = 3  # changed settings in a message


def finished_value(config: dict[str, Any], job: Job) -> float | None:
    """The result of a job that has finished with this config; None if there is work left.

    There is work left if the run was killed (its status is ``running``), or if it has made fewer
    updates than are now asked for, unless it stopped early or diverged.
    """
    if config["resume"] != "auto":
        return None
    try:
        summary = read_record(job.path / "summary.json")
        status, best = summary["status"], summary.get("best")
        recorded = read_config(job.path / "config.yaml")
        value = float(best["value"]) if best else None
        limit = config["trainer"]["limit_train_steps"]
        target_steps = min(limit or math.inf, summary["horizon_steps"])
        is_short = status in ("completed", "pruned") and summary["steps"] < target_steps
        monitor = Monitor(config["monitor"], recorded["monitor_mode"])
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return None  # an unreadable run is not finished
    now = job.recordable or config
    if now["monitor_mode"] == "auto":
        now = {**now, "monitor_mode": monitor.mode}
    if status not in FINISHED or is_short or differences(now, recorded, FREE):
        return None
    if now["data"].get("root") != recorded["data"].get("root"):
        return None  # other data, perhaps: only reading them tells
    announce("this run has already finished: nothing to do")
    return monitor.worst if status == "diverged" or value is None else value


def compare(config: dict[str, Any], recorded: dict[str, Any]) -> list[str]:
    """The settings that have changed since the recorded run.

    Raises:
        ConfigError: if a setting has changed that a resumed run must keep, or ``resume_changes``
            names an unknown one.
    """
    known = [*dotted_keys(config), *dotted_keys(recorded)]  # a setting may have been removed
    for name in config["resume_changes"]:
        if name not in known:
            raise ConfigError(f"resume_changes: {unknown_key(name, known)}")
    refused = differences(config, recorded, FREE + ENDS + tuple(config["resume_changes"]))
    if refused:
        shown = "; ".join(list(refused.values())[:SHOWN])
        more = f" and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
        # another model cannot load the weights
        named = ",".join([*config["resume_changes"], *refused])
        advice = f"add 'resume_changes=[{named}]' if that is what you want"
        if "model._target_" in refused:
            shown, more, advice = refused["model._target_"], "", "start a new run"
        raise ConfigError(f"resume: not the same run: {shown}{more}; {advice}")
    return list(differences(config, recorded, FREE))


def changes_data(key: str) -> bool:
    """Whether another value of the setting may mean other data."""
    return key.startswith("data.") and not is_among(
        key, ("data.batch_size", "data.augment", "data.transforms")
    )


def changes_monitored(key: str) -> bool:
    """Whether changing the setting makes values of the monitored metric incomparable."""
    is_named = key in ("monitor", "monitor_mode", "trainer.limit_eval_steps")
    return is_named or (changes_data(key) and key != "data.limit_train_samples")


def differences(
    config: dict[str, Any], recorded: dict[str, Any], allowed: tuple[str, ...]
) -> dict[str, str]:
    """``key was a, is b`` for every setting that differs, ``allowed`` ones excepted.

    A setting that one of them lacks counts as unchanged if it is null or empty in the other: it was
    added to the program since, or removed.
    """
    now, before = flat(config), flat(recorded)
    return {
        key: f"{key} was {before.get(key, 'absent')}, is {now.get(key, 'absent')}"
        for key in sorted(now.keys() | before.keys())
        if not (is_unchanged(key, now, before) or is_among(key, allowed))
    }


def is_unchanged(key: str, now: dict[str, Any], before: dict[str, Any]) -> bool:
    if key in now and key in before:
        return now[key] == before[key]
    return not now.get(key) and not before.get(key)


def is_among(key: str, names: tuple[str, ...]) -> bool:
    """Whether ``key`` is one of ``names`` or nested in one."""
    return any(key == name or key.startswith(name + ".") for name in names)


def flat(node: dict[str, Any], where: str = "") -> dict[str, Any]:
    """A nested config as a flat mapping from dotted keys to values."""
    flattened: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict) and value:
            flattened |= flat(value, f"{where}{key}.")
        else:
            flattened[f"{where}{key}"] = value
    return flattened
