"""Masks as pictures: a colour for every class."""

import torch
from torch import Tensor

from data.splits import UNLABELLED

OPACITY = 0.6  # of the colours over an image


def palette() -> Tensor:
    """uint8 ``(256, 3)``: the colours of PASCAL VOC's masks, class 0 black, unlabelled white."""
    classes = torch.arange(256)
    colours = torch.zeros(256, 3, dtype=torch.long)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (classes >> (3 * bit + channel) & 1) << (7 - bit)
    colours[UNLABELLED] = 255
    return colours.to(torch.uint8)


def overlay(images: Tensor, masks: Tensor) -> Tensor:
    """RGB images ``(N, 3, H, W)`` in [0, 1] with their masks' colours over them.

    Args:
        images: grey or RGB in [0, 1].
        masks: uint8 ``(N, H, W)``.
    """
    colours = palette()[masks.long()].permute(0, 3, 1, 2) / 255
    return (1 - OPACITY) * images.expand(-1, 3, -1, -1) + OPACITY * colours
