"""Multi-label classification: every class by itself, present or not."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import ConfigError
from data.splits import Batch
from metrics.named import NamedMetrics
from models.outputs import prediction_of
from objectives.base import Media, Sums, Table, mean_over_batch
from objectives.supervised import MISSING_SHOWN, Supervised, described_tensor


class Multilabel(Supervised):
    """Binary cross-entropy over ``spec.num_classes`` labels, each of which holds or does not.

    Over all samples of a split: ``map`` (mean over the labels of the average precision), ``f1``
    (mean over the labels) and ``subset_accuracy`` (samples with every label right).

    Args:
        threshold: of the probability from which on a label holds, in ``f1``, ``subset_accuracy``
            and predictions.
        class_weights: factors of each label's loss where it holds; ``balanced``: samples that lack
            the label for each that has it.
        metrics: further metrics of evaluations, by name: see :mod:`metrics.named`.

    Raises:
        ConfigError: the data have no labels, or the model does not fit them.
    """

    metric_modes: ClassVar = {"loss": "min", "map": "max", "f1": "max", "subset_accuracy": "max"}
    outputs = "label_logits"
    task = "multilabel"

    def __init__(
        self,
        model: nn.Module,
        spec: Any,
        threshold: float = 0.5,
        class_weights: Sequence[float] | Literal["balanced"] | None = None,
        metrics: Any = (),
    ) -> None:
        names = getattr(spec, "class_names", ())
        if not names:
            raise ConfigError(f"objective=multilabel needs labels, data={spec.name} has none")
        if not 0 < threshold < 1:
            raise ConfigError(f"objective.threshold={threshold} should be above 0 and below 1")
        super().__init__(model, spec, names, (2, len(names)), class_weights)
        self.threshold = threshold
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

    def check_targets(self, targets: Tensor, split: str) -> None:
        count, found = len(self.names), None
        if targets.shape[1:] != (count,):
            found = described_tensor(targets)
        elif not ((targets == 0) | (targets == 1)).all():
            found = f"{targets.min()} to {targets.max()}"
        if found is not None:
            raise ConfigError(
                f"objective=multilabel needs 0 or 1 for each of the {count} labels, shape "
                f"({count},); those of the {split} split are {found}"
            )

    def class_counts(self, targets: Tensor) -> Tensor:
        return targets.sum(0, dtype=torch.int64)

    def weights_of(self, counts: Tensor, num_samples: int) -> Tensor:
        always = [
            name for name, n in zip(self.names, counts.tolist(), strict=True) if n == num_samples
        ]
        if always:  # a weight of 0: it would not be learned
            raise ConfigError(
                "objective.class_weights=balanced: every training sample has "
                + ", ".join(always[:MISSING_SHOWN])
            )
        return (num_samples - counts) / counts

    def losses(self, outputs: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
        """``(N,)``, means over the labels."""
        return F.binary_cross_entropy_with_logits(
            outputs.float(), targets.float(), reduction="none", pos_weight=weight
        ).mean(1)

    def evaluate(self, model: nn.Module, batch: Batch) -> tuple[Sums, dict[str, Tensor]]:
        *inputs, labels = batch
        logits = prediction_of(model(*inputs)).float()
        probabilities = logits.sigmoid()
        self.metrics.update(probabilities, labels.long())
        samples = {"probability": probabilities, "label": labels}
        return {"loss": mean_over_batch(self.losses(logits, labels))}, samples

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
