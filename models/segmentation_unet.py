"""A small U-Net that gives every pixel a class (arXiv:1505.04597)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks import Residual, downsampled_size


class SegmentationUNet(nn.Module):
    """``(N, in_channels, H, W)`` -> logits ``(N, num_classes, H, W)``.

    Residual blocks halve the map at each level. The decoder upsamples it, and residual blocks join
    it with the encoder's map of the same size.

    Args:
        image_size: height and width in pixels; divisible by 2 for every level but the first.
        widths: channels of each level.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        image_size: tuple[int, int],
        widths: Sequence[int],
    ) -> None:
        super().__init__()
        why = f" for the {len(widths)} levels of widths={list(widths)}"
        downsampled_size(image_size, 2 ** (len(widths) - 1), why)
        self.stem = Residual(in_channels, widths[0])
        self.encoder = nn.ModuleList(
            Residual(above, below, stride=2) for above, below in pairwise(widths)
        )
        self.decoder = nn.ModuleList(
            Residual(below + above, above) for below, above in pairwise(widths[::-1])
        )
        self.head = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps = [self.stem(images)]
        for block in self.encoder:
            maps.append(block(maps[-1]))
        x = maps.pop()
        for block in self.decoder:
            x = block(torch.cat([F.interpolate(x, scale_factor=2), maps.pop()], 1))
        return self.head(x)
