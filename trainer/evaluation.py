"""Evaluate a model on a split: every sample counts once, for any number of processes."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from core.collectives import gather
from core.errors import ConfigError
from core.progress import Best, Monitor, Progress
from core.schema import TrainerSettings
from data.draws import EVALUATED_MODEL_STREAM, seed_process
from data.loader import Loader
from objectives.base import Objective
from optim.schedules import Horizon
from trainer.distributed.device import autocast
from trainer.distributed.parallel import make_whole
from trainer.metrics import Meter
from trainer.phase import Phase


@torch.inference_mode()
def evaluate(
    objective: Objective,
    model: nn.Module,
    data: Loader,
    split: str,
    precision: str,
    limit_steps: int | None = None,
    keep_samples: bool = False,
    between: Callable[[], None] | None = None,
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return the means of the objective's metrics over ``split``, and per-sample values on request.

    Args:
        model: the network to evaluate: the objective's own, or its average.
        limit_steps: maximum number of batches; see :meth:`data.loader.Loader.evaluated`.
        keep_samples: also return the objective's per-sample values, in the order of the split, and
            the samples' ``index`` in it. Ignored for ``train_eval``.
        between: called after each batch that all processes have, such as to check for signals.
    """
    keep_samples = (keep_samples or objective.keeps_samples) and split != "train_eval"
    seed_process(data.device, 0, EVALUATED_MODEL_STREAM, data.rank)  # for stochastic models
    objective.begin_evaluation(first=data.share(split, limit_steps)[0])
    objective.metrics.reset()
    model.eval()
    make_whole(model)
    meter = Meter()
    kept: list[dict[str, Tensor]] = []
    indices = data.evaluated(split, limit_steps)
    shared = len(indices) // data.world_size // data.eval_batch_size
    for step, batch in enumerate(data.evaluate(split, limit_steps)):
        with autocast(data.device, precision):
            sums, samples = objective.evaluate(model, batch)
        meter.add(sums)
        if keep_samples:
            kept.append({name: values.cpu() for name, values in samples.items()})
        if between is not None and step < shared:
            between()
    means = meter.means()
    means.update(objective.derived(means))
    means.update(objective.metrics.compute())
    samples = {}
    if keep_samples:
        batches = [part for parts in gather(kept) for part in parts]
        names = batches[0] if batches else {}
        samples = {name: torch.cat([part[name] for part in batches]) for name in names}
        if samples:
            samples["index"] = indices
        with autocast(data.device, precision):
            metrics, derived = objective.conclude(model, samples)
        means.update(metrics)
        samples.update(derived)
    return means, samples


def is_evaluation_step(step: int, settings: TrainerSettings, horizon: Horizon) -> bool:
    """Whether the evaluation interval, in updates or epochs, or the whole run ends with ``step``.

    The step at which ``trainer.limit_train_steps`` cuts a run does not count.
    """
    if step == horizon.total_steps:
        return True
    if settings.eval_every_steps is not None:
        return step % settings.eval_every_steps == 0
    every = settings.eval_every_epochs * horizon.steps_per_epoch
    return (step + horizon.batches_offset) % every == 0


def check_evaluations(
    monitor: Monitor,
    settings: TrainerSettings,
    objective: Objective,
    phases: Iterable[Phase],
    data: Loader,
    tried: Callable[[str], tuple[dict[str, float], Any]],
    say: Callable[[str], None],
) -> None:
    """Check before training that evaluations will measure what the settings need.

    Metrics that the objective declares are trusted; for any other, one batch is evaluated.

    Args:
        tried: evaluates one batch of a split; returns its metrics and samples.
        say: prints a note to the user.

    Raises:
        ConfigError: if the monitored metric does not exist, a setting needs a missing validation
            split or target, the target cannot be reached, or training samples have no metrics.
    """
    if data.num_views > 1 and not objective.takes_views:
        raise ConfigError(
            f"data.views={data.num_views} should be 1: {type(objective).__name__} takes one view "
            "of each image"
        )
    is_declared = "loss" in objective.metric_modes
    if "train_eval" in data.splits and not is_declared and not tried("train_eval")[0]:
        raise ConfigError(
            f"trainer.eval_train_samples={settings.eval_train_samples} should be null: "
            f"{type(objective).__name__} has no metrics of single samples"
        )
    if settings.stop_at_target and settings.target is None:
        raise ConfigError("trainer.stop_at_target=true needs a trainer.target to stop at")
    if monitor.name.endswith("accuracy") and not 0 <= (settings.target or 0) <= 1:
        raise ConfigError(
            f"trainer.target={settings.target:g} should be in [0, 1]: {monitor.name} is a fraction,"
            " such as 0.98 for 98 %"
        )
    if "val" not in data.splits:
        if setting := next(settings_needing_validation(settings, phases), None):
            raise ConfigError(
                f"{setting} needs a validation split, and data={data.spec.name} has none"
            )
        say(
            f"there is no validation split: {monitor.name} is not measured, and the last weights "
            "are tested"
        )
        return
    name = monitor.name.removeprefix("val/")
    if name in objective.metric_modes:
        return
    check_measured(monitor, tried("val")[0])
    if name not in objective.metrics.names:
        better = "higher" if monitor.mode == "max" else "lower"
        say(f"assuming that a {better} {monitor.name} is better; set monitor_mode if it is not")


def settings_needing_validation(
    settings: TrainerSettings, phases: Iterable[Phase]
) -> Iterator[str]:
    """Yield the settings that need a validation split."""
    for setting in ("target", "early_stopping_patience"):
        if (value := getattr(settings, setting)) is not None:
            yield f"trainer.{setting}={value}"
    for phase in phases:
        schedules = [phase.schedule, *(setting.schedule for setting in phase.setting_schedules)]
        if any(schedule.sees_evaluations for schedule in schedules):
            yield "scheduler=plateau"


def check_measured(monitor: Monitor, names: Iterable[str]) -> None:
    """Raise ConfigError if the monitored metric is not among ``names``."""
    if monitor.name not in names:
        measured = ", ".join(name for name in names if name.startswith("val/"))
        raise ConfigError(f"monitor={monitor.name} is not measured; choose one of {measured}")


def judge(
    metrics: dict[str, float],
    monitor: Monitor,
    progress: Progress,
    epoch: float,
    settings: TrainerSettings,
    is_planned: bool = True,
) -> bool:
    """Compare the monitored metric with the best value, the target and the patience.

    Updates ``progress``, and sets its ``stop_reason`` if training should stop.

    Args:
        epoch: epochs of training data consumed so far.
        is_planned: whether a run without ``trainer.limit_train_steps`` also has this evaluation.
            Schedules and early stopping count only those, so that both runs decide alike.

    Returns:
        Whether it is the best value so far.

    Raises:
        ConfigError: if the monitored metric was not measured.
    """
    name = monitor.name
    check_measured(monitor, metrics)
    value = metrics[name]
    if is_planned:
        progress.evaluations.append(value)
        progress.evaluations_since_best += 1
    is_best = monitor.improves(value, progress.best.value if progress.best else None)
    if is_best:
        progress.best = Best(value, progress.step, epoch)
        progress.evaluations_since_best = 0
    if progress.target is None and monitor.reaches(value, settings.target):
        seconds = round(progress.train_seconds, 3)
        progress.target = {"value": value, "step": progress.step, "seconds": seconds}
        if settings.stop_at_target:
            progress.stop_reason = f"{name} reached the target of {settings.target}"
    patience = settings.early_stopping_patience
    if patience is not None and progress.evaluations_since_best >= patience:
        progress.stop_reason = f"{name} did not improve in {patience} evaluations"
    return is_best
