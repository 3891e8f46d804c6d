"""Semantic segmentation: one class per pixel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import ConfigError
from data.pictures import overlay, save_grid
from data.splits import UNLABELLED, Batch
from metrics.named import NamedMetrics
from models.outputs import prediction_of
from objectives.base import Media, Picture, Sums, mean_over_batch, pixel_statistics, spread
from objectives.supervised import Supervised, described_tensor

NUM_SHOWN = 9  # rows of the logged picture


class Segmentation(Supervised):
    """Per-pixel cross-entropy against masks ``(N, H, W)``; ignores ``UNLABELLED`` pixels.

    The loss is averaged over each image's labelled pixels, then over images. ``miou``,
    ``iou/<class>`` and ``pixel_accuracy`` are computed over all pixels of a split; ``miou`` is the
    mean over the classes that occur in the masks or the predictions.

    Args:
        class_weights: loss weight of each class's pixels, as for
            :class:`objectives.classification.Classification`.
        metrics: names of additional evaluation metrics, see :mod:`metrics.named`.

    Raises:
        ConfigError: if the data are not images with two or more classes, or the model does not fit.
    """

    keeps_samples = shows_samples = True
    metric_modes: ClassVar = {"loss": "min", "miou": "max", "pixel_accuracy": "max"}
    outputs = "mask_logits"

    def __init__(
        self,
        model: nn.Module,
        spec: Any,
        class_weights: Sequence[float] | Literal["balanced"] | None = None,
        metrics: Any = (),
    ) -> None:
        if spec.kind != "image" or len(spec.class_names) < 2:
            raise ConfigError(
                f"objective=segmentation needs images whose pixels have two or more classes, "
                f"data={spec.name} has none: data=digits_on_textures and data=mask_folder have"
            )
        shape = (2, spec.num_classes, *spec.image_size)
        super().__init__(model, spec, spec.class_names, shape, class_weights)
        fast = {"validate_args": False}  # skips another pass over all pixels
        defaults = [
            {"name": "iou", "as": "miou", **fast},
            {"name": "iou", "average": "none", "zero_division": torch.nan, **fast},
            {"name": "balanced_accuracy", "average": "micro", "as": "pixel_accuracy", **fast},
        ]
        self.metrics = NamedMetrics(
            [*defaults, *(metrics or ())],
            self.task,
            sizes={"num_classes": spec.num_classes, "ignore_index": UNLABELLED},
            parts=spec.class_names,
            example=(torch.full(shape, 1 / spec.num_classes), torch.zeros(shape)[:, 0].long()),
            measured=("loss",),
        )
        self.shown: tuple[Tensor, ...] = ()

    def check_targets(self, targets: Tensor, split: str) -> None:
        if targets.dtype != torch.uint8 or targets.shape[1:] != tuple(self.spec.image_size):
            height, width = self.spec.image_size
            raise ConfigError(
                f"objective=segmentation needs a mask of each image's size, uint8 of shape "
                f"({height}, {width}); those of the {split} split are {described_tensor(targets)}"
            )
        labelled = targets[targets != UNLABELLED]
        count = self.spec.num_classes
        if len(labelled) and labelled.max() >= count:
            raise ConfigError(
                f"the masks of the {split} split have a class {labelled.max()}; there are "
                f"{count}, from 0 to {count - 1} ({UNLABELLED}: unlabelled)"
            )

    def losses(self, outputs: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
        """Losses ``(N,)``, averaged over the labelled pixels; 0 for images without any."""
        losses = F.cross_entropy(
            outputs.float(), targets.long(), weight, ignore_index=UNLABELLED, reduction="none"
        )
        return losses.sum((1, 2)) / (targets != UNLABELLED).sum((1, 2)).clamp(min=1)

    def evaluate(self, model: nn.Module, batch: Batch) -> tuple[Sums, dict[str, Tensor]]:
        images, masks = batch
        logits = prediction_of(model(images)).float()
        self.metrics.update(logits.softmax(1), masks.long())
        if self.evaluated_indices(batch).start == 0:
            predicted = logits.argmax(1).to(torch.uint8)
            self.shown = spread((images, masks, predicted), NUM_SHOWN)
        losses = self.losses(logits, masks)
        return {"loss": mean_over_batch(losses)}, {"loss": losses}

    def media(self, samples: dict[str, Tensor], split: Any, folder: Path) -> Media:
        """A picture of some images, each with its mask and its predicted mask overlaid."""
        images, masks, predicted = self.shown
        mean, std = pixel_statistics(self.spec)
        unnormalized = images * std + mean
        if unnormalized.shape[1] not in (1, 3):
            return {}
        rgb = unnormalized.expand(-1, 3, -1, -1)
        file = folder / "masks.png"
        save_grid(torch.cat([rgb, overlay(rgb, masks), overlay(rgb, predicted)], 3), file)
        return {"masks": Picture(file, "image, mask, prediction")}
