"""Augmentations of uint8 image batches ``(N, C, H, W)``, each sample with a draw of its own.

They are plain tensor code over the whole batch, which is many times as fast as one transform per
sample. Add one as a class with ``__call__(images, draws)`` and name it in ``data.augment``.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from data.splits import Draws


class RandomCrop:
    """Shift by up to ``padding`` pixels each way, zeros coming in at the border."""

    def __init__(self, padding: int) -> None:
        self.padding = padding

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        count, _, height, width = images.shape
        padded = F.pad(images, (self.padding,) * 4)
        offsets = (draws.uniform(2) * (2 * self.padding + 1)).long().to(images.device)
        # windows: (N, C, rows, columns, H, W) without a copy; one gather takes a window a sample
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        samples = torch.arange(count, device=images.device)
        return windows[samples, :, offsets[:, 0], offsets[:, 1]]


class HorizontalFlip:
    """Mirror each image with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        flipped = (draws.uniform(1) < self.p).view(-1, 1, 1, 1).to(images.device)
        return torch.where(flipped, images.flip(3), images)


class Cutout:
    """Blank a square of ``size`` pixels at a random place (arXiv:1708.04552)."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        height, width = images.shape[2:]
        centres = draws.uniform(2).to(images.device)
        rows = torch.arange(height, device=images.device)
        columns = torch.arange(width, device=images.device)
        top = (centres[:, :1] * height).floor() - self.size // 2
        left = (centres[:, 1:] * width).floor() - self.size // 2
        in_rows = (rows >= top) & (rows < top + self.size)
        in_columns = (columns >= left) & (columns < left + self.size)
        hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
        return images.masked_fill(hole, 0)


class RandomAffine:
    """Rotate, scale and shift each image: the usual augmentation of digits.

    Args:
        degrees: rotation drawn from ``[-degrees, degrees]``.
        translate: shift drawn from this fraction of the size, each way.
        scale: factor drawn from ``[1 - scale, 1 + scale]``.
    """

    def __init__(self, degrees: float = 10.0, translate: float = 0.1, scale: float = 0.1) -> None:
        self.degrees = degrees
        self.translate = translate
        self.scale = scale

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        draw = draws.uniform(4).to(images.device) * 2 - 1
        angle = draw[:, 0] * math.radians(self.degrees)
        zoom = 1 + draw[:, 1] * self.scale
        shift = draw[:, 2:] * self.translate * 2  # affine_grid's coordinates span 2
        cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        theta = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], 1).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        moved = F.grid_sample(images.float(), grid, align_corners=False)
        return moved.round_().to(torch.uint8)
