"""Renders segmentation masks as images, one colour per class."""

import torch
from torch import Tensor

from data.splits import UNLABELLED

OPACITY = 0.6  # of the class colours over the image


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
