"""Generated images, to try sizes and shapes without a real data set."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.schema import Count
from data.images import Augment, as_size, image_splits
from data.splits import Splits, TensorSplit

SEED = 5000
PATTERN_SIZE = 4  # pixels before upsampling: smooth patterns, which networks learn


def synthetic_images(
    num_train: Count,
    num_val: Count,
    num_test: Count,
    num_classes: Annotated[int, Field(ge=2)],
    channels: Count,
    image_size: Any,
    noise: float,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    root: str = "",
    augment: Sequence[Augment] = (),
) -> Splits:
    """A smooth random pattern per class; samples differ in contrast and noise.

    The images depend on these settings alone. ``root`` is not used: nothing is cached.

    Args:
        noise: standard deviation of the noise, relative to that of the pattern.
    """
    height, width = as_size(image_size)
    generator = torch.Generator().manual_seed(SEED)
    coarse = torch.randn(num_classes, channels, PATTERN_SIZE, PATTERN_SIZE, generator=generator)
    patterns = F.interpolate(coarse, (height, width), mode="bilinear")
    counts = (num_train, num_val, num_test)
    train, val, test = (sample(patterns, count, noise, generator) for count in counts)
    names = [f"class {number}" for number in range(num_classes)]
    return image_splits(
        "synthetic_images", train, val, test, names, mean, std, augment, synthetic=True
    )


def sample(patterns: Tensor, count: int, noise: float, generator: torch.Generator) -> TensorSplit:
    """``count`` images, cycling through the classes."""
    labels = torch.arange(count) % len(patterns)
    images = torch.empty(count, *patterns.shape[1:], dtype=torch.uint8)
    for part, its_labels in zip(images.split(1000), labels.split(1000), strict=True):
        contrast = 0.5 + torch.rand(len(part), 1, 1, 1, generator=generator)
        values = patterns[its_labels] * contrast
        values += noise * torch.randn(values.shape, generator=generator)
        part.copy_(values.mul_(48).add_(128).round_().clamp_(0, 255))
    return TensorSplit(images, labels)
