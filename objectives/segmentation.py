"""Semantic segmentation: a class for every pixel."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import ConfigError
from data.loader import Loader
from data.masks import overlay
from data.pictures import save_grid
from data.splits import UNLABELLED, Batch
from metrics.named import NamedMetrics
from models.outputs import prediction_of
from objectives.base import (
    Media,
    Objective,
    Picture,
    Sums,
    check_output,
    mean_over_batch,
    try_model,
)
from objectives.classification import all_labels

NUM_SHOWN = 9  # samples in the picture of an evaluation


class Segmentation(Objective):
    """Cross-entropy over the pixels of masks ``(N, H, W)``; those at ``UNLABELLED`` count nowhere.

    The loss is the mean over an image's labelled pixels, then over images. ``miou``,
    ``iou/<class>`` and ``pixel_accuracy`` come from the counts of all pixels of a split; ``miou``
    is the mean over the classes that occur in the masks or the predictions.

    Args:
        metrics: further metrics of evaluations, by name: see :mod:`metrics.named`.

    Raises:
        ConfigError: the data are no images with classes, or the model does not fit them.
    """

    keeps_samples = shows_samples = True
    metric_modes: ClassVar = {"loss": "min", "miou": "max", "pixel_accuracy": "max"}
    outputs = "mask_logits"

    def __init__(self, model: nn.Module, spec: Any, metrics: Any = ()) -> None:
        super().__init__(model)
        if spec.kind != "image" or len(spec.class_names) < 2:
            raise ConfigError(
                f"objective=segmentation needs images whose pixels are of two or more classes, "
                f"data={spec.name} has none: data=digits_on_textures and data=mask_folder have"
            )
        self.spec = spec
        images = spec.example(2)
        logits = try_model(model, [images], f"model and data={spec.name} do not fit")
        shape = (2, spec.num_classes, *spec.image_size)
        check_output(logits, shape, model, f"model and data={spec.name} do not fit")
        fast = {"validate_args": False}  # which would look at every pixel once more
        own = [
            {"name": "iou", "as": "miou", **fast},
            {"name": "iou", "average": "none", "zero_division": torch.nan, **fast},
            {"name": "balanced_accuracy", "average": "micro", "as": "pixel_accuracy", **fast},
        ]
        self.metrics = NamedMetrics(
            [*own, *(metrics or ())],
            self.task,
            sizes={"num_classes": spec.num_classes, "ignore_index": UNLABELLED},
            parts=spec.class_names,
            example=(torch.full(shape, 1 / spec.num_classes), torch.zeros(shape)[:, 0].long()),
            measured=("loss",),
        )
        self.shown: tuple[Tensor, ...] = ()

    def setup(self, data: Loader) -> None:
        for name, split in data.splits.items():
            check_masks(split, name, self.spec)

    def forward(self, phase: str, batch: Batch) -> tuple[Tensor, Sums]:
        images, masks = batch
        losses = mask_losses(prediction_of(self.model(images)), masks)
        return losses.mean(), {"loss": mean_over_batch(losses)}

    def begin_evaluation(self, first: int) -> None:
        self.shown = ()
        self.is_first_batch = first == 0

    def evaluate(self, model: nn.Module, batch: Batch) -> tuple[Sums, dict[str, Tensor]]:
        images, masks = batch
        logits = prediction_of(model(images)).float()
        self.metrics.update(logits.softmax(1), masks.long())
        if self.is_first_batch:
            predicted = logits.argmax(1).to(torch.uint8)
            spread = slice(None, None, max(1, len(images) // NUM_SHOWN))  # many are sorted
            found = (images, masks, predicted)
            self.shown = tuple(tensor[spread][:NUM_SHOWN].cpu() for tensor in found)
            self.is_first_batch = False
        losses = mask_losses(logits, masks)
        return {"loss": mean_over_batch(losses)}, {"loss": losses}

    def media(self, samples: dict[str, Tensor], split: Any, folder: Path) -> Media:
        """Some images of the split, their masks over them, and those that are predicted."""
        images, masks, predicted = self.shown
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self.spec.mean, self.spec.std))
        plain = images * std + mean
        if plain.shape[1] not in (1, 3):
            return {}
        rgb = plain.expand(-1, 3, -1, -1)
        file = folder / "masks.png"
        save_grid(torch.cat([rgb, overlay(rgb, masks), overlay(rgb, predicted)], 3), file)
        return {"masks": Picture(file, "image, mask, prediction")}


def mask_losses(logits: Tensor, masks: Tensor) -> Tensor:
    """``(N,)``, means over the labelled pixels of each image; 0 where there is none."""
    targets = masks.long()
    losses = F.cross_entropy(logits.float(), targets, ignore_index=UNLABELLED, reduction="none")
    return losses.sum((1, 2)) / (targets != UNLABELLED).sum((1, 2)).clamp(min=1)


def check_masks(split: Any, name: str, spec: Any) -> None:
    """Check all masks, or that of the first sample where the others are not known.

    Raises:
        ConfigError: they are no masks of the images' size, or have other classes.
    """
    masks = all_labels(split)
    if masks is None:
        masks = torch.as_tensor(split[0][-1])[None]
    if masks.dtype != torch.uint8 or masks.shape[1:] != tuple(spec.image_size):
        height, width = spec.image_size
        found = f"{masks.dtype} of shape {tuple(masks.shape[1:])}".removeprefix("torch.")
        raise ConfigError(
            f"objective=segmentation needs a mask of the size of each image, uint8 of shape "
            f"({height}, {width}); those of the {name} split are {found}"
        )
    labelled = masks[masks != UNLABELLED]
    if len(labelled) and labelled.max() >= spec.num_classes:
        raise ConfigError(
            f"the masks of the {name} split have a class {labelled.max()}; there are "
            f"{spec.num_classes}, from 0 to {spec.num_classes - 1} ({UNLABELLED}: unlabelled)"
        )
