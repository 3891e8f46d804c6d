"""Classification by cross-entropy, with label smoothing, mixup, CutMix and class weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import ConfigError
from core.schema import BelowOne, NonNegative
from data.documents import TokenSplit
from data.draws import BatchDraws
from data.pictures import save_grid
from data.splits import Batch, Mix, TensorSplit
from metrics.named import NamedMetrics
from models.outputs import prediction_of
from objectives.base import ConfusionMatrix, Media, Sums, Table, mean_over_batch
from objectives.supervised import Supervised, described_tensor
from objectives.views import mean_over_views

WORST = 20  # rows of the table of worst predictions


class Classification(Supervised):
    """Cross-entropy over ``spec.num_classes`` classes.

    Args:
        label_smoothing: probability mass spread uniformly over all classes (arXiv:1512.00567).
        mixup_alpha: if positive, mix pairs of images and labels (arXiv:1710.09412).
        cutmix_alpha: if positive, paste patches between images (arXiv:1905.04899). If both are
            positive, each batch uses one of the two at random.
        class_weights: loss weight of each class, in the order of the class names, or ``balanced``,
            which gives all classes of the training data an equal share of the loss. Evaluation is
            unweighted.
        test_time_views: number of views of an image over which evaluation averages the predictions:
            1, 2 or 6, see :mod:`objectives.views`.
        metrics: names of additional evaluation metrics, see :mod:`metrics.named`.

    Raises:
        ConfigError: if the model does not accept the inputs, has another number of classes, or a
            setting is invalid.
    """

    metric_modes: ClassVar = {"loss": "min", "accuracy": "max"}
    outputs = "class_logits"

    def __init__(
        self,
        model: nn.Module,
        spec: Any,
        label_smoothing: BelowOne = 0.0,
        mixup_alpha: NonNegative = 0.0,
        cutmix_alpha: NonNegative = 0.0,
        class_weights: Sequence[float] | Literal["balanced"] | None = None,
        test_time_views: Literal[1, 2, 6, None] = None,
        metrics: Any = (),
    ) -> None:
        if not getattr(spec, "class_names", ()):
            raise ConfigError(
                f"objective=classification needs classes, data={spec.name} has none; leave the "
                "objective to the model, or choose the data's (objective=regression for numbers)"
            )
        if spec.num_classes < 2:
            raise ConfigError(
                f"data={spec.name} has only one class, {spec.class_names[0]} "
                "(image folders are root/train/<class>/*)"
            )
        views = test_time_views or 1
        if views > 1 and not hasattr(spec, "image_size"):
            raise ConfigError(f"objective.test_time_views={views} is for images: set it to 1")
        if hasattr(model, "sample"):
            raise ConfigError(
                f"model and objective=classification do not fit: {type(model).__name__} generates "
                "images and has no classes; leave the objective to the model"
            )
        super().__init__(model, spec, spec.class_names, (2, spec.num_classes), class_weights)
        self.test_time_views = views
        self.label_smoothing = label_smoothing
        self.mix = mixing(mixup_alpha, cutmix_alpha, spec)
        self.metrics = NamedMetrics(
            metrics,
            self.task,
            sizes={"num_classes": spec.num_classes},
            parts=spec.class_names,
            example=(torch.full((2, spec.num_classes), 1 / spec.num_classes), torch.arange(2)),
            measured=tuple(self.metric_modes),
        )

    def check_targets(self, targets: Tensor, split: str) -> None:
        actual = None
        if targets.ndim != 1 or targets.dtype not in (torch.int64, torch.uint8):
            actual = described_tensor(targets)
        elif targets.min() < 0 or targets.max() >= self.spec.num_classes:
            actual = f"{targets.min()} to {targets.max()}"
        if actual is not None:
            raise ConfigError(
                f"objective=classification needs one class per sample, an int64 from 0 to "
                f"{self.spec.num_classes - 1}; the labels of the {split} split are {actual}"
            )

    def forward(self, phase: str, batch: Batch) -> tuple[Tensor, Sums]:
        *inputs, labels = batch
        targets = labels if self.mix is None else inputs.pop()
        logits = prediction_of(self.model(*inputs)).float()
        if self.weight is None:
            loss = F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        else:  # torch's weighted mean divides by the weights in the batch: wrong for micro-batches
            loss = F.cross_entropy(
                logits, targets, self.weight, label_smoothing=self.label_smoothing, reduction="none"
            ).mean()
        correct = (logits.detach().argmax(1) == labels).sum()
        return loss, {
            "loss": (loss.detach() * len(labels), len(labels)),
            "accuracy": (correct, len(labels)),
        }

    def evaluate(self, model: nn.Module, batch: Batch) -> tuple[Sums, dict[str, Tensor]]:
        *inputs, labels = batch
        logits = mean_over_views(model, inputs, self.test_time_views)
        losses = F.cross_entropy(logits, labels, reduction="none")
        probabilities = logits.softmax(1)
        confidence, predictions = probabilities.max(1)
        self.metrics.update(probabilities, labels)
        sums = {
            "loss": mean_over_batch(losses),
            "accuracy": mean_over_batch((predictions == labels).float()),
        }
        samples = {
            "loss": losses,
            "label": labels,
            "prediction": predictions,
            "confidence": confidence,
        }
        return sums, samples

    def media(self, samples: dict[str, Tensor], split: Any, folder: Path) -> Media:
        names = self.spec.class_names
        pairs = samples["label"] * len(names) + samples["prediction"]
        counts = pairs.bincount(minlength=len(names) ** 2).view(len(names), -1)
        columns = ["index", "label", "prediction", "confidence", "loss"]
        worst = samples["loss"].argsort(descending=True)[:WORST]
        rows = []
        values = zip(*(samples[name][worst].tolist() for name in columns), strict=True)
        for index, label, prediction, confidence, loss in values:
            scores = round(confidence, 4), round(loss, 4)
            sample = self.shown(split, index, folder)
            rows.append([index, names[label], names[prediction], *scores, sample])
        images = () if isinstance(split, TokenSplit) else ("sample",)
        return {
            "confusion_matrix": ConfusionMatrix(names, counts.tolist()),
            "worst_predictions": Table([*columns, "sample"], rows, images),
        }

    def shown(self, split: Any, index: int, folder: Path) -> str:
        """The table cell of a sample: its text, or the name of its image file."""
        if isinstance(split, TokenSplit):
            return self.spec.decode(split.text(index))
        return save_image(split, index, folder)


def mixing(mixup_alpha: float, cutmix_alpha: float, spec: Any) -> Mix | None:
    """torchvision's mixup, CutMix, or a random choice of the two per update; None without either.

    The mixed batch holds the images, the soft targets ``(N, num_classes)`` and, for the accuracy,
    the original labels ``(N,)``.

    Raises:
        ConfigError: if the data are not images.
    """
    if mixup_alpha == 0 and cutmix_alpha == 0:
        return None
    if spec.kind != "image":
        raise ConfigError("objective.mixup_alpha and objective.cutmix_alpha are for images")
    from torchvision.transforms import v2  # takes seconds to import

    transforms: list[nn.Module] = []
    for kind, alpha in ((v2.MixUp, mixup_alpha), (v2.CutMix, cutmix_alpha)):
        if alpha > 0:  # an int alpha would make the Beta distribution draw integers
            transforms.append(kind(alpha=float(alpha), num_classes=spec.num_classes))
    transform = transforms[0] if len(transforms) == 1 else v2.RandomChoice(transforms)

    def mix(batch: Batch, draws: BatchDraws) -> Batch:
        images, labels = batch
        draws.seed_for_all_samples()
        mixed, targets = transform(images, labels)  # each sample with the preceding one
        return mixed[1:], targets[1:], labels[1:]

    return mix


def save_image(split: Any, index: int, folder: Path) -> str:
    """Save a raw uint8 image as PNG; returns the file name, or "" for other samples."""
    sample = split.tensors[0][index] if isinstance(split, TensorSplit) else split[index][0]
    if not isinstance(sample, Tensor) or sample.dtype != torch.uint8:
        return ""
    file = folder / f"test_{index}.png"
    save_grid(sample[None] / 255, file)
    return file.name
