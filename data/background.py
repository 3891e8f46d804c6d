"""Whether images show something light on a dark ground or something dark on a light one."""

from typing import Any

import torch
from torch import Tensor

from data.splits import InOrder

NUM_SAMPLES = 64  # looked at
SAME = 0.1  # of the range from black to white: borders that differ by less are alike
SHARE = 0.9  # of the images whose borders are alike
OPPOSITE = 0.5  # of the range: training that has an image this far from the others knows both


def border_brightness(images: Tensor) -> Tensor:
    """The median of the outermost pixels of uint8 images ``(N, C, H, W)``: ``(N,)`` in [0, 1]."""
    grey = images.float().mean(1) / 255
    rows, columns = grey[:, [0, -1]], grey[:, 1:-1, [0, -1]]
    return torch.cat([rows.flatten(1), columns.flatten(1)], 1).median(1).values


def common_background(split: Any) -> float | None:
    """The brightness in [0, 1] that the borders of a split's grey images share, if they do."""
    count = min(NUM_SAMPLES, len(split))
    reach = count if isinstance(split, InOrder) else len(split)  # which would be read to its end
    images = torch.stack([split[i * reach // count][0] for i in range(count)])
    if images.shape[1] != 1:
        return None
    levels = border_brightness(images)
    middle = levels.median()
    distances = (levels - middle).abs()
    are_alike = (distances < SAME).float().mean() >= SHARE and distances.max() < OPPOSITE
    return middle.item() if are_alike else None
