"""Multi-label classification: every class by itself, present or not."""

import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import ConfigError
from data.loader import Loader
from data.splits import Batch
from metrics.named import NamedMetrics
from models.outputs import prediction_of
from objectives.base import (
    Media,
    Objective,
    Sums,
    Table,
    check_output,
    mean_over_batch,
    try_model,
)
from objectives.classification import all_labels


class Multilabel(Objective):
    """Binary cross-entropy over ``spec.num_classes`` labels, each of which holds or does not.

    Over all samples of a split: ``map`` (mean over the labels of the average precision), ``f1``
    (mean over the labels) and ``subset_accuracy`` (samples with every label right).

    Args:
        threshold: of the probability from which on a label holds, in ``f1``, ``subset_accuracy``
            and predictions.
        metrics: further metrics of evaluations, by name: see :mod:`metrics.named`.

    Raises:
        ConfigError: the data have no labels, or the model does not fit them.
    """

    metric_modes: ClassVar = {"loss": "min", "map": "max", "f1": "max", "subset_accuracy": "max"}
    outputs = "label_logits"
    task = "multilabel"

    def __init__(
        self, model: nn.Module, spec: Any, threshold: float = 0.5, metrics: Any = ()
    ) -> None:
        super().__init__(model)
        names = getattr(spec, "class_names", ())
        if not names:
            raise ConfigError(f"objective=multilabel needs labels, data={spec.name} has none")
        if not 0 < threshold < 1:
            raise ConfigError(f"objective.threshold={threshold} should be above 0 and below 1")
        self.names: tuple[str, ...] = names
        self.threshold = threshold
        example = spec.example(2)
        inputs = example if isinstance(example, tuple) else (example,)
        logits = try_model(model, inputs, f"model and data={spec.name} do not fit")
        check_output(logits, (2, len(names)), model, "the number of labels")
        own = [
            {"name": "average_precision", "as": "map"},
            {"name": "f1", "threshold": threshold},
            {"name": "exact_match", "threshold": threshold, "as": "subset_accuracy"},
        ]
        self.metrics = NamedMetrics(
            [*own, *(metrics or ())],
            self.task,
            sizes={"num_labels": len(names)},
            parts=names,
            example=(torch.full((2, len(names)), 0.5), torch.eye(2, len(names)).long()),
            measured=("loss",),
        )

    def setup(self, data: Loader) -> None:
        for name, split in data.splits.items():
            check_labels(split, name, self.names)

    def forward(self, phase: str, batch: Batch) -> tuple[Tensor, Sums]:
        *inputs, labels = batch
        losses = label_losses(prediction_of(self.model(*inputs)), labels)
        return losses.mean(), {"loss": mean_over_batch(losses)}

    def evaluate(self, model: nn.Module, batch: Batch) -> tuple[Sums, dict[str, Tensor]]:
        *inputs, labels = batch
        logits = prediction_of(model(*inputs)).float()
        probabilities = logits.sigmoid()
        self.metrics.update(probabilities, labels.long())
        samples = {"probability": probabilities, "label": labels}
        return {"loss": mean_over_batch(label_losses(logits, labels))}, samples

    def media(self, samples: dict[str, Tensor], split: Any, folder: Path) -> Media:
        """How well each label is told."""
        from torchmetrics.functional.classification import multilabel_average_precision

        labels, probabilities = samples["label"].long(), samples["probability"]
        told = probabilities > self.threshold
        right = (told & (labels == 1)).sum(0)
        with warnings.catch_warnings(action="ignore"):  # of labels without samples, which are nan
            precisions = multilabel_average_precision(
                probabilities, labels, num_labels=len(self.names), average="none"
            )
        values = [
            labels.sum(0),
            precisions,
            right / told.sum(0),
            right / labels.sum(0),
            2 * right / (told.sum(0) + labels.sum(0)),
        ]
        columns = ["label", "samples", "average precision", "precision", "recall", "F1"]
        rows = zip(self.names, *(column.tolist() for column in values), strict=True)
        return {"labels": Table(columns, [list(row) for row in rows])}


def label_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """``(N,)``, means over the labels."""
    targets = labels.float()
    return F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").mean(1)


def check_labels(split: Any, name: str, names: tuple[str, ...]) -> None:
    """Check all labels, or those of the first sample where the others are not known.

    Raises:
        ConfigError: they are not 0 and 1 for every label.
    """
    labels = all_labels(split)
    if labels is None:
        labels = torch.as_tensor(split[0][-1])[None]
    found = None
    if labels.shape[1:] != (len(names),):
        found = f"{labels.dtype} of shape {tuple(labels.shape[1:])}".removeprefix("torch.")
    elif not ((labels == 0) | (labels == 1)).all():
        found = f"{labels.min()} to {labels.max()}"
    if found is not None:
        raise ConfigError(
            f"objective=multilabel needs 0 or 1 for each of the {len(names)} labels, shape "
            f"({len(names)},); those of the {name} split are {found}"
        )
