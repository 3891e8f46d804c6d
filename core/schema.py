"""The typed settings of a run, and the check of a composed config against them.

Values are in ``conf/``; this file has names, types, ranges and meanings. Fields have no defaults,
so that each is given once, except for ``param_groups.rules``, of which ``conf/`` lists none. The
docstring below a field is its entry in the reference.
"""

import difflib
import json
from dataclasses import fields
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from core.errors import ConfigError

T = TypeVar("T")
FORBID = ConfigDict(extra="forbid", use_attribute_docstrings=True)
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True, config=FORBID)
class TrainerSettings:
    """``trainer``: how long, where and how to train."""

    max_epochs: Count
    """Epochs to train; the horizon of the schedule."""
    max_steps: Count | None
    """Updates to train, in place of ``max_epochs``."""
    limit_train_steps: Count | None
    """Stop after this many updates, without changing the schedule's horizon."""
    limit_eval_steps: Count | None
    """Evaluate this many batches per split and process, spread over the split; null: all."""
    test: bool
    """Evaluate the best weights on the test split at the end."""

    devices: Count | Literal["auto"]
    """Processes on this machine; auto: one per visible GPU, or one without a GPU."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"]
    """Device to train on; auto: the fastest available."""
    num_nodes: Count
    """Machines; start the same command on each."""
    rdzv_endpoint: str | None
    """``host:port`` of the first machine, for the rendezvous of all."""
    max_restarts: Annotated[int, Field(ge=0)]
    """How often all processes are restarted after one has failed."""
    strategy: Literal["ddp", "fsdp"]
    """Every process holds the whole model (ddp), or a shard of it (fsdp)."""
    timeout_seconds: Positive
    """How long a process waits for the others before it fails."""
    sync_batchnorm: bool
    """Compute batch-norm statistics over the batches of all processes."""

    precision: Literal["auto", "fp32", "bf16", "fp16"]
    """Precision of the forward pass; auto: bf16 if supported, fp16 on older GPUs, else fp32."""
    channels_last: bool
    """Memory format of images and convolutions. Ignored on a CPU if the model has a strided 1x1
    convolution of fewer than 16 channels, for which oneDNN may compute wrong gradients."""
    compile: bool | Literal["default", "reduce-overhead", "max-autotune"]
    """Compile the model with ``torch.compile`` in this mode; true: default. Text generation between
    updates is not compiled, since its lengths vary. Refused on a CPU where ``channels_last`` is
    ignored, since the compiler uses it anyway."""
    cuda_graph: bool
    """Launch an update as one CUDA graph, which speeds up small networks on a GPU. Not with several
    processes, fp16, ``compile``, or optimizers whose step has control flow on the host."""
    deterministic: bool
    """Use only algorithms that are bitwise reproducible; slower on GPUs."""
    num_threads: Count | None
    """CPU threads per process; null: the machine's, divided among its processes."""

    clip_grad_norm: Positive | None
    """Clip the norm of all gradients together to this value."""
    clip_grad_value: Positive | None
    """Clip every entry of the gradients to this absolute value."""
    accumulate_steps: Count
    """Micro-batches into which the batch of an update is split."""
    average: Literal["ema", "swa"] | None
    """Evaluate and save averaged weights: an exponential average (ema), or the mean of late weights
    (swa), with batch-norm statistics re-estimated; null: ema if ``ema_decay`` is set, else none.
    Not with schedule-free optimizers."""
    ema_decay: BelowOne | None
    """Decay of the exponential average; null: 0.999. It rises to this value as (1 + updates) /
    (10 + updates)."""
    swa_start: BelowOne
    """Fraction of the horizon after which swa starts averaging."""
    swa_every_steps: Count | None
    """Updates between the weights that swa averages; null: one epoch."""
    on_nonfinite: Literal["raise", "skip", "stop"]
    """On a non-finite loss or gradient: fail, skip the update, or end the run."""

    target: float | None
    """Value of the monitored metric; the time and update when it is first reached are recorded."""
    stop_at_target: bool
    """End the run when ``target`` is reached."""
    early_stopping_patience: Count | None
    """End the run after this many evaluations without improvement."""

    log_every_steps: Count
    """Updates between records of the training metrics."""
    eval_every_epochs: Count
    """Epochs between evaluations."""
    eval_every_steps: Count | None
    """Updates between evaluations, in place of ``eval_every_epochs``."""
    eval_train_samples: Count | None
    """At every evaluation also evaluate this many training samples, always the same ones, as
    ``train_eval/...``; null: none."""
    monitor_layers: bool
    """Record the norms of gradient, weights and update of every layer, as ``layers/...``."""
    profile_steps: Count | None
    """Profile this many updates with torch's profiler; trace and table are in ``profile/``."""
    checkpoint: bool
    """Write checkpoints. Without them, the last weights are tested and a run cannot be resumed."""
    checkpoint_every_steps: Count | None
    """Updates between checkpoints, in addition to those at evaluations."""
    checkpoint_every_seconds: Positive | None
    """Seconds between checkpoints, in addition to those at evaluations."""
    progress: bool
    """Show a progress bar if the output is a terminal."""


@dataclass(frozen=True, config=FORBID)
class WandbSettings:
    """``wandb``: logging to Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"]
    """auto: online if an API key is configured, else offline."""
    project: str | None
    """Project of the run; null: WANDB_PROJECT, else optimizer-experiments."""
    entity: str | None
    """User or team; null: the API key's default."""
    name: str | None
    """Name of the run; null: its overrides, within a sweep those that vary."""
    notes: str | None
    """Free-text notes of the run."""
    group: str | None
    """Group of the run; null: WANDB_RUN_GROUP, else the sweep."""
    job_type: str
    """Kind of run; a study sets tune, repeat or untuned."""
    candidate: str | None
    """The candidate that the run belongs to in comparisons; null: the command line's choices."""
    tags: list[str | int]
    """Tags of the run."""


@dataclass(frozen=True, config=FORBID)
class RuleSettings:
    """One of ``param_groups.rules``. A setting that is left out is not changed by the rule."""

    match: str
    """Regular expression, searched for in parameter names."""
    lr_scale: Positive = 1.0
    """Factor of the scheduled learning rate."""
    weight_decay: NonNegative | None = None
    """Weight decay in place of the optimizer's, also for norms and biases."""
    freeze: bool = False
    """Do not train; fully frozen batch norms also keep their running statistics."""


@dataclass(frozen=True, config=FORBID)
class ParamGroupSettings:
    """``param_groups``: parameter groups, the same for every optimizer."""

    decay_norms_and_biases: bool
    """Also decay norms, biases, class tokens, position embeddings and layer scales."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None
    """Learning-rate factor from each layer to the one below it."""
    not_hidden: list[str]
    """Regular expressions: parameters that Muon leaves to AdamW, besides those it finds itself."""
    rules: list[RuleSettings]
    """``lr_scale``, ``weight_decay`` and ``freeze`` by parameter name. The first rule that matches
    wins; one that matches nothing is an error."""


@dataclass(frozen=True, config=FORBID)
class PhaseSettings:
    """One of ``phases``: settings of one phase of an objective that has several."""

    optimizer: dict
    """The phase's optimizer, from the group ``optimizer``."""
    scheduler: dict
    """The phase's schedule, from the group ``scheduler``."""
    clip_grad_norm: Positive | None
    """As ``trainer.clip_grad_norm``, for this phase."""
    clip_grad_value: Positive | None
    """As ``trainer.clip_grad_value``, for this phase."""


@dataclass(frozen=True, config=FORBID)
class Settings:
    """All settings of a run. Nodes typed ``dict`` are checked when they are instantiated."""

    seed: Seed
    """Seed of everything random: initial weights, sample order, augmentation, dropout."""
    resume: str | None
    """Run directory or checkpoint to resume; auto: this run directory's, if it has a checkpoint."""
    init_from: str | None
    """Run directory, checkpoint or state dict (``.pt``, ``.pth``, ``.safetensors``) from which to
    initialize the weights whose names and shapes match."""
    resume_changes: list[str]
    """Settings that may differ from the resumed run's."""
    monitor: Annotated[str, Field(pattern=r"^val/\w+$")]
    """Metric that decides the best checkpoint and early stopping, and is returned to a sweep."""
    monitor_mode: Literal["auto", "max", "min"]
    """Whether the monitored metric is maximized or minimized; auto: as the objective says."""
    model: dict
    """The network; null values that the data have under the same name are filled in from them."""
    data: dict
    """The data set, its splits, augmentation and batch size."""
    objective: dict
    """The loss and the metrics."""
    optimizer: dict
    """The optimizer; empty if every phase has its own."""
    scheduler: dict
    """The learning rate as a function of the update; empty if every phase has its own."""
    momentum_schedule: dict
    """Momentum, or the first beta, as a function of the update; empty: constant. Any schedule:
    ``scheduler@momentum_schedule=NAME``."""
    weight_decay_schedule: dict
    """The same for weight decay: ``scheduler@weight_decay_schedule=NAME``."""
    phases: dict[str, PhaseSettings]
    """Optimizer, schedule and clipping of each phase; empty: one phase, set by top-level keys."""
    param_groups: ParamGroupSettings
    """Parameter groups."""
    trainer: TrainerSettings
    """How long, where and how to train."""
    wandb: WandbSettings
    """Weights & Biases."""
    loggers: list[dict]
    """Additional loggers, each with the ``_target_`` of a writer."""


def check_settings(config: dict[str, Any]) -> TrainerSettings:
    """Check the resolved config of a run and return its trainer settings.

    Raises:
        ConfigError: if a key is unknown (names the nearest) or missing, or a value is wrong.
    """
    return checked(Settings, config).trainer


@cache
def adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def checked(schema: type[T], node: dict[str, Any]) -> T:
    """Validate ``node`` as the dataclass ``schema``.

    Raises:
        ConfigError: if a key is unknown or missing, or a type or value is wrong.
    """
    try:
        # strict: "3" and true are no numbers; dataclasses are then made from JSON only
        return adapter(schema).validate_json(json.dumps(node, default=str), strict=True)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = error.errors(include_url=False)
    unknown = [p for p in problems if p["type"] == "unexpected_keyword_argument"]
    if unknown:
        key = key_of(unknown[0], node)
        known = [known for known in dotted_keys(node) if known != key]
        place = key.rpartition(".")[0]
        if place.startswith("param_groups.rules."):  # the config lists only those that are set
            known = [f"{place}.{field.name}" for field in fields(RuleSettings)]
        raise ConfigError(unknown_key(key, known))
    if problems[0]["type"] == "missing":
        raise ConfigError(f"{'.'.join(map(str, problems[0]['loc']))} is missing from the config")
    key, value = key_of(problems[0], node), problems[0]["input"]
    # a union reports one problem per type
    wanted = [p["msg"].partition(" should ")[2] for p in problems if key_of(p, node) == key]
    raise ConfigError(f"{key}={value} should {' or '.join(wanted)}")


def check_value(kind: Any, value: Any, where: str) -> None:
    """Raise ConfigError unless ``value`` is valid for the annotation ``kind``."""
    try:
        # "3" and true are no numbers; 1e3 is a whole one
        adapter(kind).validate_python(value, strict=isinstance(value, str | bool))
    except ValidationError as error:
        messages = [problem["msg"] for problem in error.errors(include_url=False)]
        wanted = [msg.partition(" should ")[2] for msg in messages]
        what = f"should {' or '.join(wanted)}" if all(wanted) else f"is refused: {messages[0]}"
        raise ConfigError(f"{where}={value} {what}") from error


def key_of(problem: Any, node: Any) -> str:
    """Dotted key of a pydantic problem, without the type that ends the ``loc`` of a union."""
    parts = []
    for part in problem["loc"]:
        try:
            node = node[part]
        except (LookupError, TypeError):
            break
        parts.append(str(part))
    return ".".join(parts)


def dotted_keys(node: dict[str, Any], where: str = "") -> list[str]:
    """All dotted keys of a config."""
    keys = []
    for key, value in node.items():
        keys.append(f"{where}{key}")
        if isinstance(value, dict):
            keys += dotted_keys(value, f"{where}{key}.")
    return keys


def unknown_key(key: str, known_keys: list[str]) -> str:
    """The message for an unknown key, with the nearest known one."""
    by_last = {known.rpartition(".")[2]: known for known in reversed(known_keys)}
    whole = difflib.get_close_matches(key, known_keys, n=1)
    last = difflib.get_close_matches(key.rpartition(".")[2], list(by_last), n=1)
    siblings = [known for known in whole if known.count(".") == key.count(".")]
    guess = siblings[0] if siblings else by_last[last[0]] if last else None
    kind = "hydra" if key.startswith("hydra.") else "job"
    hint = f"did you mean {guess}?" if guess else f"python train.py --cfg {kind} shows all keys"
    return f"unknown setting {key}: {hint}"
