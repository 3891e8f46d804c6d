"""torchmetrics by name: ``objective.metrics=[f1, top5, {name: ece, n_bins: 10}]``.

They are updated with every evaluation sample exactly once. Their states are gathered over the
processes, so the values do not depend on the number of processes.
"""

import importlib
import re
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from core.collectives import gather
from core.errors import ConfigError, reason

# short name -> torchmetrics class; classification classes are prefixed by the task, such as
# MulticlassF1Score
SHORT_NAMES = {
    "f1": "F1Score",
    "precision": "Precision",
    "recall": "Recall",
    "specificity": "Specificity",
    "auroc": "AUROC",
    "average_precision": "AveragePrecision",
    "ece": "CalibrationError",
    "kappa": "CohenKappa",
    "mcc": "MatthewsCorrCoef",
    "iou": "JaccardIndex",
    "balanced_accuracy": "Accuracy",
    "exact_match": "ExactMatch",
    "mae": "MeanAbsoluteError",
    "rmse": "MeanSquaredError",
    "mape": "MeanAbsolutePercentageError",
    "r2": "R2Score",
    "pearson": "PearsonCorrCoef",
    "spearman": "SpearmanCorrCoef",
    "mse": "MeanSquaredError",
    "psnr": "PeakSignalNoiseRatio",
    "ssim": "StructuralSimilarityIndexMeasure",
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "balanced_accuracy": {"average": "macro"},
    "rmse": {"squared": False},
}
# task -> torchmetrics packages; other tasks use classification, whose classes are prefixed
PACKAGES: dict[str, tuple[str, ...]] = {
    "regression": ("regression",),
    "images": ("regression", "image"),
}
NOT_FOR_IMAGES = ("r2", "pearson", "spearman")  # take only (N,) or (N, outputs)
TOP = re.compile(r"top(\d+)")  # top5: top-5 accuracy


class NamedMetrics:
    """The metrics of ``objective.metrics``, computed over one evaluation at a time.

    Args:
        named: names, or mappings of ``name``, ``as`` (the name to record) and constructor settings.
        task: torchmetrics' ``multiclass``, ``multilabel`` or ``binary``; or ``regression``; or
            ``images`` (predicted and target images in [0, 1]).
        sizes: settings for every metric that accepts them, such as ``num_classes``.
        parts: names of the classes, labels or outputs; suffixes of the recorded per-class values.
        example: predictions and targets for :meth:`update`, to validate the metrics at start-up.
        measured: metric names that the objective already records.

    Raises:
        ConfigError: if a metric does not exist, rejects its settings or does not fit the task.
    """

    def __init__(
        self,
        named: Any = (),
        task: str = "multiclass",
        sizes: dict[str, Any] | None = None,
        parts: Sequence[str] = (),
        example: tuple[Tensor, Tensor] | None = None,
        measured: Sequence[str] = (),
    ) -> None:
        self.parts = parts
        self.metrics: dict[str, Any] = {}
        for entry in entries(named):
            name = recorded_name(entry)
            if name in self.metrics or name in measured:
                raise ConfigError(
                    f"objective.metrics: {name} is recorded already; this one can be recorded "
                    f"under another name: {{name: {entry['name']}, as: ANOTHER_NAME}}"
                )
            self.metrics[name] = build(entry, task, sizes or {})
        if example is not None and self.metrics:
            self.validate(*example, task)

    @property
    def names(self) -> list[str]:
        return list(self.metrics)

    def validate(self, predictions: Tensor, targets: Tensor, task: str) -> None:
        """Raise ConfigError if a metric fails on the example or returns another shape."""
        for name, metric in self.metrics.items():
            try:
                with warnings.catch_warnings(action="ignore"):  # such as classes without samples
                    metric.update(predictions, targets)
                    value = metric.compute()
            except Exception as error:  # torchmetrics may raise anything
                raise ConfigError(
                    f"objective.metrics: {name} does not fit {task_phrase(task)}: {reason(error)}"
                ) from error
            metric.reset()
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            if shape not in ((), (1,), (len(self.parts),)):
                raise ConfigError(
                    f"objective.metrics: {name} returns {shape}; a metric should be one number, or "
                    "one for each class"
                )

    def reset(self) -> None:
        for metric in self.metrics.values():
            metric.reset()

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Update all metrics with a batch.

        Args:
            predictions: probabilities ``(N, classes, ...)`` or ``(N, labels)``, or values.
            targets: class indices ``(N, ...)``, or the same shape as the predictions.
        """
        with torch.autocast(predictions.device.type, enabled=False):
            for metric in self.metrics.values():
                if metric.device != predictions.device:
                    metric.to(predictions.device)
                metric.update(predictions, targets)

    def compute(self) -> dict[str, float]:
        """The values over the samples of all processes (a collective call)."""
        values: dict[str, float] = {}
        for name, metric in self.metrics.items():
            try:
                with warnings.catch_warnings(action="ignore"):  # such as classes without samples
                    result = metric.compute().tolist()
            except ValueError as error:  # such as R2 of a single sample
                raise ConfigError(f"objective.metrics: {name}: {reason(error)}") from error
            if isinstance(result, list) and len(result) > 1:
                values |= {f"{name}/{part}": v for part, v in zip(self.parts, result, strict=True)}
            else:
                values[name] = result[0] if isinstance(result, list) else result
        return values


def entries(named: Any) -> list[dict[str, Any]]:
    """The entries of ``objective.metrics`` as mappings.

    Raises:
        ConfigError: if an entry is neither a name nor a mapping with a valid ``name``.
    """
    listed = named if isinstance(named, list | tuple) else [] if named is None else [named]
    mappings = [entry if isinstance(entry, dict) else {"name": entry} for entry in listed]
    for entry in mappings:
        names = (entry.get("name"), recorded_name(entry))
        if not all(isinstance(name, str) and name.isidentifier() for name in names):
            raise ConfigError(
                f"objective.metrics={named} should be a list of names, or of mappings such as "
                "{name: f1, average: micro, as: f1_micro}"
            )
    return mappings


def recorded_name(entry: dict[str, Any]) -> Any:
    return entry.get("as", entry.get("name"))


def build(entry: dict[str, Any], task: str, sizes: dict[str, Any]) -> Any:
    """Build the torchmetrics metric of one entry.

    Raises:
        ConfigError: if the metric does not exist or rejects its settings.
    """
    name = entry["name"]
    kind = metric_class(name, task)
    settings = DEFAULTS.get(name, {})
    if top := TOP.fullmatch(name):
        settings = {"top_k": int(top[1]), "average": "micro"}
    accepted = signature(kind).parameters  # pass only the sizes that the class accepts
    common = {key: value for key, value in {"task": task, **sizes}.items() if key in accepted}
    given = {key: value for key, value in entry.items() if key not in ("name", "as")}
    # a process may have no sample of a small split
    warnings.filterwarnings("ignore", ".*was called before the ``update`` method")
    try:
        with warnings.catch_warnings(action="ignore"):  # about the stored samples
            return kind(**common | settings | given, dist_sync_fn=gather_parts)
    except Exception as error:  # torchmetrics may raise anything
        raise ConfigError(
            f"objective.metrics: {kind.__name__} refused its settings: {reason(error)}"
        ) from error


def metric_class(name: str, task: str) -> Any:
    """The torchmetrics class for ``name``.

    Raises:
        ConfigError: if there is none for the task.
    """
    prefix = "" if task in PACKAGES else task.capitalize()
    classes: dict[str, Any] = {}
    for package in PACKAGES.get(task, ("classification",)):
        module = importlib.import_module(f"torchmetrics.{package}")  # a second to import
        classes |= {known: getattr(module, known) for known in module.__all__}
    classes = {known: kind for known, kind in classes.items() if known.startswith(prefix)}
    short = {key: prefix + known for key, known in SHORT_NAMES.items() if prefix + known in classes}
    if task == "images":
        short = {key: known for key, known in short.items() if key not in NOT_FOR_IMAGES}
    known = f"{prefix}Accuracy" if TOP.fullmatch(name) else short.get(name, name)
    if known not in classes:
        nearest = get_close_matches(name, [*short, *classes], n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise ConfigError(
            f"objective.metrics: there is no {name} for {task_phrase(task)}; {hint}there are "
            f"{', '.join(short)}, and the classes {prefix and prefix + '... '}of {module.__name__}"
        )
    return classes[known]


def task_phrase(task: str) -> str:
    return task if task == "images" else f"a {task} task"


def mode_of(named: Any, metric: str, task: str) -> str | None:
    """Whether the recorded ``metric`` is maximized (``max``) or minimized; None: unknown.

    Raises:
        ConfigError: if the metric does not exist.
    """
    for entry in entries(named):
        if metric == recorded_name(entry):
            is_better_high = metric_class(entry["name"], task).higher_is_better
            return None if is_better_high is None else "max" if is_better_high else "min"
    return None


def gather_parts(value: Tensor, group: Any) -> list[Tensor]:
    """torchmetrics' ``dist_sync_fn``: gather a state from all processes that saw samples."""
    parts = [part.to(value.device) for part in gather(value.cpu())]
    return [part for part in parts if part.numel()]
