"""The typed settings of a run, and the check of a composed config against them.

The values stand in ``conf/``; here stand their names, types and meaning. Nothing below has a
default, so that none stands twice.
"""

import difflib
import re
from dataclasses import dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from core.errors import ConfigError


@dataclass(frozen=True)
class TrainerSettings:
    """``trainer``: how long, where and how to train."""

    max_epochs: int
    max_steps: int | None  # updates; overrides max_epochs
    limit_train_steps: int | None  # stop after so many updates, the schedule's horizon included
    limit_eval_steps: int | None  # evaluation batches per split and process
    test: bool  # measure the test split at the end; a study's trials must not see it
    devices: int | Literal["auto"]  # processes; auto: every visible GPU, else one
    accelerator: Literal["auto", "cpu", "cuda", "mps"]
    num_nodes: int
    rdzv_endpoint: str | None  # host:port of the first node
    max_restarts: int
    strategy: Literal["ddp", "fsdp"]
    timeout_seconds: float
    sync_batchnorm: bool
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    channels_last: bool
    compile: bool
    deterministic: bool
    num_threads: int | None  # CPU threads per process; null: this machine's, shared out
    clip_grad_norm: float | None
    clip_grad_value: float | None
    accumulate_steps: int  # micro-batches per update
    ema_decay: float | None
    on_nonfinite: Literal["raise", "skip", "stop"]
    target: float | None  # value of the monitored metric; when it is reached is recorded
    stop_at_target: bool
    early_stopping_patience: int | None  # evaluations without improvement
    log_every_steps: int
    eval_every_epochs: int
    eval_every_steps: int | None  # overrides eval_every_epochs
    checkpoint: bool
    checkpoint_every_steps: int | None
    checkpoint_every_seconds: float | None
    progress: bool


@dataclass(frozen=True)
class WandbSettings:
    """``wandb``: where the run is mirrored to."""

    mode: Literal["auto", "online", "offline", "disabled"]
    project: str | None  # null: WANDB_PROJECT, else optimizer-experiments
    entity: str | None
    name: str | None  # null: what the command line chooses
    notes: str | None
    group: str | None
    job_type: str
    candidate: str | None  # what runs are grouped by; null: what the command line chooses
    tags: list[str | int]


@dataclass(frozen=True)
class ParamGroupSettings:
    """``param_groups``: shared by every optimizer."""

    decay_norms_and_biases: bool
    layer_decay: float | None  # factor of the learning rate from each layer to the one below it
    not_hidden: list[str]  # further parameters (regular expressions) that are none of Muon's


@dataclass(frozen=True)
class PhaseSettings:
    """One of ``phases``: what an objective of several phases has for each of them."""

    optimizer: dict
    scheduler: dict
    clip_grad_norm: float | None
    clip_grad_value: float | None


@dataclass(frozen=True)
class Settings:
    """A whole run. Nodes typed ``dict`` are checked where they are instantiated."""

    seed: int
    resume: str | None
    resume_changes: list[str]  # settings that may differ from the resumed run's
    monitor: str
    monitor_mode: Literal["auto", "max", "min"]
    model: dict
    data: dict
    objective: dict
    optimizer: dict
    scheduler: dict
    phases: dict[str, PhaseSettings]
    param_groups: ParamGroupSettings
    trainer: TrainerSettings
    wandb: WandbSettings


AT_LEAST_ONE = (
    "max_epochs",
    "max_steps",
    "limit_train_steps",
    "limit_eval_steps",
    "devices",
    "num_nodes",
    "accumulate_steps",
    "log_every_steps",
    "eval_every_epochs",
    "eval_every_steps",
    "checkpoint_every_steps",
    "num_threads",
    "early_stopping_patience",
)
AT_LEAST_ZERO = ("max_restarts",)
POSITIVE = ("clip_grad_norm", "clip_grad_value", "timeout_seconds", "checkpoint_every_seconds")


def check_settings(config: dict[str, Any]) -> TrainerSettings:
    """Check the resolved config of a run and return its trainer settings.

    Raises:
        ConfigError: an unknown or missing key (with the nearest known one), a wrong type or value.
    """
    check_node(config, Settings, "", dotted_keys(config))
    trainer = trainer_settings(config["trainer"])
    check_seed(config["seed"])
    if not re.fullmatch(r"val/\w+", config["monitor"]):
        raise ConfigError(f"monitor={config['monitor']} should be a metric such as val/accuracy")
    return trainer


def check_seed(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed={seed} should be at least 0 and below 2**63")


def trainer_settings(node: dict[str, Any]) -> TrainerSettings:
    """The settings of ``trainer``, whose types have been checked.

    Raises:
        ConfigError: a value out of range.
    """
    trainer = TrainerSettings(**node)
    for name in AT_LEAST_ONE:
        value = getattr(trainer, name)
        if isinstance(value, int) and value < 1:
            raise ConfigError(f"trainer.{name}={value} should be at least 1")
    for name in AT_LEAST_ZERO:
        if getattr(trainer, name) < 0:
            raise ConfigError(f"trainer.{name}={getattr(trainer, name)} should be at least 0")
    for name in POSITIVE:
        value = getattr(trainer, name)
        if value is not None and value <= 0:
            raise ConfigError(f"trainer.{name}={value} should be above 0")
    if trainer.ema_decay is not None and not 0 <= trainer.ema_decay < 1:
        raise ConfigError(f"trainer.ema_decay={trainer.ema_decay} should be in [0, 1)")
    return trainer


def check_node(node: dict[str, Any], schema: type, where: str, known_keys: list[str]) -> None:
    hints = get_type_hints(schema)
    known = [field.name for field in fields(schema)]
    for key in node:
        if key not in known:
            others = [other for other in known_keys if other != join(where, key)]
            raise ConfigError(unknown_key(join(where, key), others))
    for name in known:
        if name not in node:
            raise ConfigError(f"{join(where, name)} is missing from the config")
        check_value(node[name], hints[name], join(where, name), known_keys)


def check_value(value: Any, hint: Any, where: str, known_keys: list[str]) -> None:
    if get_origin(hint) is dict and isinstance(value, dict):
        for key, item in value.items():
            check_value(item, get_args(hint)[1], join(where, key), known_keys)
    elif is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}={value} should be a group of settings")
        check_node(value, hint, where, known_keys)  # type: ignore[arg-type]
    elif not matches(value, hint):
        raise ConfigError(f"{where}={value} should be {describe(hint)}")


def matches(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (UnionType, Union):
        return any(matches(value, option) for option in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is list:
        return isinstance(value, list) and all(matches(v, get_args(hint)[0]) for v in value)
    if origin is dict:
        return False  # its items are checked one by one
    if origin is tuple:
        items = [item for item in get_args(hint) if item is not Ellipsis]
        if not isinstance(value, tuple) or (len(items) == len(get_args(hint)) != len(value)):
            return False
        return all(matches(v, items[min(i, len(items) - 1)]) for i, v in enumerate(value))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def describe(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    origin = get_origin(hint)
    if origin in (UnionType, Union):
        return " or ".join(describe(option) for option in get_args(hint))
    if origin is Literal:
        return ", ".join(str(option) for option in get_args(hint))
    if origin in (list, tuple):
        return "a list"
    return "null" if hint is type(None) else words.get(hint, "a group of settings")


def dotted_keys(node: dict[str, Any], where: str = "") -> list[str]:
    """Every key of a config, with dots."""
    keys = []
    for key, value in node.items():
        keys.append(join(where, key))
        if isinstance(value, dict):
            keys += dotted_keys(value, join(where, key))
    return keys


def unknown_key(key: str, known_keys: list[str]) -> str:
    """One line for a key that nothing reads, with the nearest one that something does."""
    by_last = {known.rpartition(".")[2]: known for known in reversed(known_keys)}
    whole = difflib.get_close_matches(key, known_keys, n=1)
    last = difflib.get_close_matches(key.rpartition(".")[2], list(by_last), n=1)
    siblings = [known for known in whole if known.count(".") == key.count(".")]
    guess = siblings[0] if siblings else by_last[last[0]] if last else None
    hint = f"did you mean {guess}?" if guess else "python train.py --cfg job shows all keys"
    return f"unknown setting {key}: {hint}"


def join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else str(key)
