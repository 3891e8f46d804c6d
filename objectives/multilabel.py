"""Multi-label classification: each class is independently present or absent."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import ConfigError
from data.splits import Batch
from metrics.named import NamedMetrics
from models.outputs import prediction_of
from objectives.base import Media, Sums, Table, mean_over_batch
from objectives.supervised import MISSING_SHOWN, Supervised, described_tensor


class Multilabel(Supervised):
    """Binary cross-entropy over ``spec.num_classes`` independent labels.

    Computed over all samples of a split: ``map`` (mean average precision over the labels), ``f1``
    (macro average) and ``subset_accuracy`` (fraction of samples with every label right).

    Args:
        threshold: probability above which a label is predicted, for ``f1``, ``subset_accuracy`` and
            predict.py.
        class_weights: positive weight of each label (``pos_weight``); ``balanced``: its ratio of
            negative to positive training samples.
        metrics: names of additional evaluation metrics, see :mod:`metrics.named`.

    Raises:
        ConfigError: if the data have no labels, or the model does not fit them.
    """

    metric_modes: ClassVar = {"loss": "min", "map": "max", "f1": "max", "subset_accuracy": "max"}
    outputs = "label_logits"
    task = "multilabel"

    def __init__(
        self,
        model: nn.Module,
        spec: Any,
        threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5,
        class_weights: Sequence[float] | Literal["balanced"] | None = None,
        metrics: Any = (),
    ) -> None:
        names = getattr(spec, "class_names", ())
        if not names:
            raise ConfigError(f"objective=multilabel needs labels, data={spec.name} has none")
        super().__init__(model, spec, names, (2, len(names)), class_weights)
        self.threshold = threshold
        defaults = [
            {"name": "average_precision", "as": "map"},
            {"name": "f1", "threshold": threshold},
            {"name": "exact_match", "threshold": threshold, "as": "subset_accuracy"},
        ]
        self.metrics = NamedMetrics(
            [*defaults, *(metrics or ())],
            self.task,
            sizes={"num_labels": len(names)},
            parts=names,
            example=(torch.full((2, len(names)), 0.5), torch.eye(2, len(names)).long()),
            measured=("loss",),
        )

    def check_targets(self, targets: Tensor, split: str) -> None:
        count, actual = len(self.names), None
        if targets.shape[1:] != (count,):
            actual = described_tensor(targets)
        elif not ((targets == 0) | (targets == 1)).all():
            actual = f"{targets.min()} to {targets.max()}"
        if actual is not None:
            raise ConfigError(
                f"objective=multilabel needs 0 or 1 for each of the {count} labels, shape "
                f"({count},); those of the {split} split are {actual}"
            )

    def class_counts(self, targets: Tensor) -> Tensor:
        return targets.sum(0, dtype=torch.int64)

    def weights_of(self, counts: Tensor, num_samples: int) -> Tensor:
        always = [
            name for name, n in zip(self.names, counts.tolist(), strict=True) if n == num_samples
        ]
        if always:  # their weight would be 0
            raise ConfigError(
                "objective.class_weights=balanced: every training sample has "
                + ", ".join(always[:MISSING_SHOWN])
            )
        return (num_samples - counts) / counts

    def losses(self, outputs: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
        """Losses ``(N,)``, averaged over the labels."""
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
        """A table of precision, recall, F1 and average precision of each label."""
        from torchmetrics.functional.classification import multilabel_average_precision

        labels, probabilities = samples["label"].long(), samples["probability"]
        predicted = probabilities > self.threshold
        true_positives = (predicted & (labels == 1)).sum(0)
        with warnings.catch_warnings(action="ignore"):  # labels without samples are nan
            precisions = multilabel_average_precision(
                probabilities, labels, num_labels=len(self.names), average="none"
            )
        values = [
            labels.sum(0),
            precisions,
            true_positives / predicted.sum(0),
            true_positives / labels.sum(0),
            2 * true_positives / (predicted.sum(0) + labels.sum(0)),
        ]
        columns = ["label", "samples", "average precision", "precision", "recall", "F1"]
        rows = zip(self.names, *(column.tolist() for column in values), strict=True)
        return {"labels": Table(columns, [list(row) for row in rows])}
