"""The typed settings of a run, and the check of a composed config against them.

The values stand in ``conf/``; here stand names, types, ranges and meaning. No field has a default,
so that none stands twice; only the rules of ``param_groups`` have, of which ``conf/`` lists none.
The line below a field is its entry in the reference.
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
Seed = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True, config=FORBID)
class TrainerSettings:
    """``trainer``: how long, where and how to train."""

    max_epochs: Count
    """Passes over the training data; the horizon of the schedule."""
    max_steps: Count | None
    """Updates in place of ``max_epochs``."""
    limit_train_steps: Count | None
    """Stop after so many updates; the schedule's horizon stays."""
    limit_eval_steps: Count | None
    """Evaluation batches per split and process, spread over the split; null: all."""
    test: bool
    """Measure the best weights on the test split at the end; a study's trials do not."""

    devices: Count | Literal["auto"]
    """Processes on this machine; auto: one for every visible GPU, else one."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"]
    """Where to compute; auto: the fastest there is."""
    num_nodes: Count
    """Machines; the same command is started on each."""
    rdzv_endpoint: str | None
    """``host:port`` of the first machine, where the others meet it."""
    max_restarts: Annotated[int, Field(ge=0)]
    """How often all processes are started again after one failed."""
    strategy: Literal["ddp", "fsdp"]
    """Every process holds the whole model (ddp), or a share of it (fsdp)."""
    timeout_seconds: Positive
    """How long a process waits for the others before it gives up."""
    sync_batchnorm: bool
    """Batch norms take their statistics over the batches of all processes."""

    precision: Literal["auto", "fp32", "bf16", "fp16"]
    """Of the forward pass; auto: bf16 where the hardware has it, fp16 on older GPUs, else fp32."""
    channels_last: bool
    """Memory format of images and convolutions. Not used on a CPU by a model with a strided 1x1
    convolution of fewer than 8 channels, for which oneDNN would compute wrong gradients."""
    compile: bool | Literal["default", "reduce-overhead", "max-autotune"]
    """``torch.compile`` the model, in this mode; true: default. Texts that are generated between
    updates are not compiled, being of every length."""
    cuda_graph: bool
    """Launch an update as one CUDA graph, which speeds up small networks on a GPU. Not with several
    processes, fp16, ``compile``, or optimizers whose step decides something on the host."""
    deterministic: bool
    """Only algorithms that give the same bits every time; slower on GPUs."""
    num_threads: Count | None
    """CPU threads per process; null: the machine's, shared out."""

    clip_grad_norm: Positive | None
    """Scale the gradients down to this norm, all of them together."""
    clip_grad_value: Positive | None
    """Clip every entry of the gradients."""
    accumulate_steps: Count
    """Micro-batches per update; the batch size stays the same."""
    average: Literal["ema", "swa"] | None
    """Evaluate and keep an average of the weights: exponential, or the mean of those late in the
    run (swa), whose batch norms are estimated again; null: ema where ``ema_decay`` is set, else
    none. Not with schedule-free optimizers."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None
    """Of the exponential average, 0.999 where it is null; it rises to this value as (1 + updates) /
    (10 + updates)."""
    swa_start: Annotated[float, Field(ge=0, lt=1)]
    """Fraction of the horizon after which swa begins."""
    swa_every_steps: Count | None
    """Updates between two weights that swa averages; null: an epoch."""
    on_nonfinite: Literal["raise", "skip", "stop"]
    """At a loss or gradient that is not finite: fail, leave the update out, or end the run."""

    target: float | None
    """Value of the monitored metric; the time and update at which it is reached are recorded."""
    stop_at_target: bool
    """End the run there."""
    early_stopping_patience: Count | None
    """End the run after so many evaluations without improvement."""

    log_every_steps: Count
    """Updates between two records of the training metrics."""
    eval_every_epochs: Count
    """Epochs between two evaluations."""
    eval_every_steps: Count | None
    """Updates between two evaluations, in place of ``eval_every_epochs``."""
    eval_train_samples: Count | None
    """Measure so many training samples at every evaluation as well, always the same ones, as
    ``train_eval/...``; null: none."""
    monitor_layers: bool
    """Record the norms of gradient, weights and update of every layer, as ``layers/...``."""
    profile_steps: Count | None
    """Run so many updates under torch's profiler; trace and table are in ``profile/``."""
    checkpoint: bool
    """Write checkpoints; without, the last weights are tested and a run cannot be resumed."""
    checkpoint_every_steps: Count | None
    """Updates between two checkpoints, beside those at evaluations."""
    checkpoint_every_seconds: Positive | None
    """Seconds between two checkpoints, beside those at evaluations."""
    progress: bool
    """Show a progress bar where the output is a terminal."""


@dataclass(frozen=True, config=FORBID)
class WandbSettings:
    """``wandb``: where the run is shown."""

    mode: Literal["auto", "online", "offline", "disabled"]
    """auto: online where a key is configured, else offline."""
    project: str | None
    """Project of the run; null: WANDB_PROJECT, else optimizer-experiments."""
    entity: str | None
    """User or team; null: the default of the key."""
    name: str | None
    """Name of the run; null: what differs within the sweep."""
    notes: str | None
    """Free text beside the run."""
    group: str | None
    """Group of the run; null: the sweep."""
    job_type: str
    """Kind of run; a study's are tune and repeat."""
    candidate: str | None
    """What runs are compared by; null: what the command line chooses."""
    tags: list[str | int]
    """Labels of the run."""


@dataclass(frozen=True, config=FORBID)
class RuleSettings:
    """One of ``param_groups.rules``. What it leaves out stays as it is without the rule."""

    match: str
    """Regular expression, searched for in the names of parameters."""
    lr_scale: Positive = 1.0
    """Factor of the learning rate, whatever the schedule makes of it."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Weight decay in place of the optimizer's; also of norms and biases."""
    freeze: bool = False
    """Do not train; batch norms that are frozen as a whole keep their statistics, too."""


@dataclass(frozen=True, config=FORBID)
class ParamGroupSettings:
    """``param_groups``: how parameters are grouped, the same for every optimizer."""

    decay_norms_and_biases: bool
    """Decay everything, also norms, biases, class tokens, position embeddings and layer scales."""
    layer_decay: float | None
    """Factor of the learning rate from each layer to the one below it."""
    not_hidden: list[str]
    """Regular expressions on names of what Muon leaves to AdamW, beside what it finds itself."""
    rules: list[RuleSettings]
    """For parameters by name: ``lr_scale``, ``weight_decay``, ``freeze``. The first that matches
    wins; one that matches nothing is an error."""


@dataclass(frozen=True, config=FORBID)
class PhaseSettings:
    """One of ``phases``: what an objective of several phases has for each of them."""

    optimizer: dict
    """The phase's optimizer, as the group ``optimizer`` has them."""
    scheduler: dict
    """The phase's schedule, as the group ``scheduler`` has them."""
    clip_grad_norm: Positive | None
    """As ``trainer.clip_grad_norm``."""
    clip_grad_value: Positive | None
    """As ``trainer.clip_grad_value``."""


@dataclass(frozen=True, config=FORBID)
class Settings:
    """A whole run. Nodes typed ``dict`` are checked where they are instantiated."""

    seed: Seed
    """Of everything random: weights, order, augmentation, dropout."""
    resume: str | None
    """A run directory or checkpoint to go on from; auto: this one's, if there is one."""
    init_from: str | None
    """A run directory, checkpoint or state dict (``.pt``, ``.pth``, ``.safetensors``) whose weights
    to begin with, as far as names and shapes fit."""
    resume_changes: list[str]
    """Settings that may differ from the resumed run's."""
    monitor: Annotated[str, Field(pattern=r"^val/\w+$")]
    """Metric that decides the best checkpoint, early stopping and what a sweep sees."""
    monitor_mode: Literal["auto", "max", "min"]
    """Whether more of it is better, or less; auto: as the objective says."""
    model: dict
    """The network; null where the data have a value of the same name."""
    data: dict
    """The data set, its splits, augmentation and batch size."""
    objective: dict
    """What is minimized and measured."""
    optimizer: dict
    """The optimizer; empty where every phase has its own."""
    scheduler: dict
    """The learning rate as a function of the update; empty where every phase has its own."""
    momentum_schedule: dict
    """Momentum, or the first beta, as a function of the update; empty: constant. Any schedule:
    ``scheduler@momentum_schedule=NAME``."""
    weight_decay_schedule: dict
    """Weight decay likewise: ``scheduler@weight_decay_schedule=NAME``."""
    phases: dict[str, PhaseSettings]
    """Optimizer, schedule and clipping of every phase; empty: one phase, from the keys above."""
    param_groups: ParamGroupSettings
    """How parameters are grouped."""
    trainer: TrainerSettings
    """How long, where and how to train."""
    wandb: WandbSettings
    """Weights & Biases."""
    loggers: list[dict]
    """Further places to log to, each with the ``_target_`` of a writer."""


def check_settings(config: dict[str, Any]) -> TrainerSettings:
    """Check the resolved config of a run and return its trainer settings.

    Raises:
        ConfigError: an unknown or missing key (with the nearest known one), a wrong type or value.
    """
    return checked(Settings, config).trainer


@cache
def adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def checked(schema: type[T], node: dict[str, Any]) -> T:
    """``node`` as the dataclass ``schema``.

    Raises:
        ConfigError: an unknown or missing key, a wrong type or value.
    """
    try:
        # strict: "3" is no number, nor is true; only of JSON may mappings then become dataclasses
        return adapter(schema).validate_json(json.dumps(node, default=str), strict=True)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = error.errors(include_url=False)
    unknown = [p for p in problems if p["type"] == "unexpected_keyword_argument"]
    if unknown:
        key = key_of(unknown[0], node)
        known = [known for known in dotted_keys(node) if known != key]
        place = key.rpartition(".")[0]
        if place.startswith("param_groups.rules."):  # which the config lists as far as they are set
            known = [f"{place}.{field.name}" for field in fields(RuleSettings)]
        raise ConfigError(unknown_key(key, known))
    if problems[0]["type"] == "missing":
        raise ConfigError(f"{'.'.join(map(str, problems[0]['loc']))} is missing from the config")
    key, value = key_of(problems[0], node), problems[0]["input"]
    # a union has one problem for each of its types
    wanted = [p["msg"].partition(" should ")[2] for p in problems if key_of(p, node) == key]
    raise ConfigError(f"{key}={value} should {' or '.join(wanted)}")


def key_of(problem: Any, node: Any) -> str:
    """The dotted key of a problem in ``node``; its ``loc`` ends with the type in a union."""
    parts = []
    for part in problem["loc"]:
        try:
            node = node[part]
        except (LookupError, TypeError):
            break
        parts.append(str(part))
    return ".".join(parts)


def dotted_keys(node: dict[str, Any], where: str = "") -> list[str]:
    """Every key of a config, with dots."""
    keys = []
    for key, value in node.items():
        keys.append(f"{where}{key}")
        if isinstance(value, dict):
            keys += dotted_keys(value, f"{where}{key}.")
    return keys


def unknown_key(key: str, known_keys: list[str]) -> str:
    """One line for a key that nothing reads, with the nearest one that something does."""
    by_last = {known.rpartition(".")[2]: known for known in reversed(known_keys)}
    whole = difflib.get_close_matches(key, known_keys, n=1)
    last = difflib.get_close_matches(key.rpartition(".")[2], list(by_last), n=1)
    siblings = [known for known in whole if known.count(".") == key.count(".")]
    guess = siblings[0] if siblings else by_last[last[0]] if last else None
    kind = "hydra" if key.startswith("hydra.") else "job"
    hint = f"did you mean {guess}?" if guess else f"python train.py --cfg {kind} shows all keys"
    return f"unknown setting {key}: {hint}"
