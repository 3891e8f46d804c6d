"""Writes tensors as image files, and shows segmentation masks in colours, one per class."""

import math
from pathlib import Path

import torch
from torch import Tensor

from core.files import no_link
from data.splits import UNLABELLED

GAP = 2  # pixels between the images of a grid
OPACITY = 0.6  # of the class colours over the image


def save_grid(images: Tensor, file: Path) -> None:
    """Write images ``(N, C, H, W)`` in [0, 1] as a square grid in one PNG, row by row.

    ``C`` is 1 (grey) or 3 (RGB).
    """
    from PIL import Image

    count, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    cells = torch.ones(rows * columns, channels, height + GAP, width + GAP)
    cells[:count, :, :height, :width] = images.clamp(0, 1).cpu()
    # (rows, columns, C, H, W) -> (rows * H, columns * W, C)
    pixels = cells.unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    array = (pixels[:-GAP, :-GAP] * 255).round().to(torch.uint8).squeeze(2).numpy()
    with open(file, "wb", opener=no_link) as opened:
        Image.fromarray(array).save(opened, "PNG")


def palette() -> Tensor:
    """PASCAL VOC's palette, uint8 ``(256, 3)``: class 0 is black, unlabelled pixels are white."""
    classes = torch.arange(256)
    colours = torch.zeros(256, 3, dtype=torch.long)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (classes >> (3 * bit + channel) & 1) << (7 - bit)
    colours[UNLABELLED] = 255
    return colours.to(torch.uint8)


def overlay(images: Tensor, masks: Tensor) -> Tensor:
    """Blend images with the colours of their masks: RGB ``(N, 3, H, W)`` in [0, 1].

    Args:
        images: grey or RGB in [0, 1].
        masks: uint8 ``(N, H, W)``.
    """
    colours = palette()[masks.long()].permute(0, 3, 1, 2) / 255
    return (1 - OPACITY) * images.expand(-1, 3, -1, -1) + OPACITY * colours
