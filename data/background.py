"""Detects whether images show light shapes on a dark background or the reverse."""

from typing import Any

import torch
from torch import Tensor

from data.splits import InOrder

NUM_SAMPLES = 64  # images inspected
SAME = 0.1  # fraction of the black-to-white range within which two borders count as alike
SHARE = 0.9  # share of the images that must have alike borders
OPPOSITE = 0.5  # fraction of the range: an image this far off means that both polarities occur


def border_brightness(images: Tensor) -> Tensor:
    """Median of the outermost pixels of uint8 images ``(N, C, H, W)``: ``(N,)`` in [0, 1]."""
    grey = images.float().mean(1) / 255
    rows, columns = grey[:, [0, -1]], grey[:, 1:-1, [0, -1]]
    return torch.cat([rows.flatten(1), columns.flatten(1)], 1).median(1).values


def common_background(split: Any) -> float | None:
    """The border brightness in [0, 1] that a split's grey images share; None if they share none."""
    count = min(NUM_SAMPLES, len(split))
    reach = count if isinstance(split, InOrder) else len(split)  # an iterable is read no further
    images = torch.stack([split[i * reach // count][0] for i in range(count)])
    if images.shape[1] != 1:
        return None
    levels = border_brightness(images)
    middle = levels.median()
    distances = (levels - middle).abs()
    are_alike = (distances < SAME).float().mean() >= SHARE and distances.max() < OPPOSITE
    return middle.item() if are_alike else None
