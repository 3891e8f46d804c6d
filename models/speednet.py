"""A network that learns CIFAR-10 in seconds on a GPU (arXiv:2404.00498)."""

import torch
from torch import Tensor, nn

EPSILON = 5e-4  # limits the gain of directions in which images hardly vary


class SpeedNet(nn.Module):
    """``(N, in_channels, 32, 32)`` -> ``(N, num_classes)``.

    A frozen layer that whitens patches of 2 x 2 pixels, three groups of two convolutions that start
    as the identity, and scaled-down logits. Batch norms have a bias and no scale.

    Args:
        widths: channels of each group.
        logit_scale: factor of the logits.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        widths: tuple[int, int, int] = (64, 256, 256),
        logit_scale: float = 1 / 9,
    ) -> None:
        super().__init__()
        num_directions = in_channels * 2 * 2
        self.whiten = nn.Conv2d(in_channels, 2 * num_directions, 2)
        self.whiten.weight.requires_grad_(False)
        assert self.whiten.bias is not None
        nn.init.zeros_(self.whiten.bias)
        channels = (2 * num_directions, *widths)
        self.groups = nn.Sequential(
            *(ConvGroup(before, width) for before, width in zip(channels, widths, strict=False))
        )
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        self.logit_scale = logit_scale

    def initialize_from(self, images: Tensor) -> None:
        """Set the whitening layer from the patches of ``images`` ``(N, C, H, W)``.

        Its filters are the principal directions and their negatives, divided by the deviation.
        """
        patches = nn.functional.unfold(images.float().contiguous(), 2)  # (N, C * 4, places)
        patches = patches.transpose(1, 2).flatten(0, 1)
        covariance = patches.T @ patches / len(patches)
        values, vectors = torch.linalg.eigh(covariance)
        whitening = (vectors / (values + EPSILON).sqrt()).T.flip(0)
        whitening = torch.cat([whitening, -whitening])
        self.whiten.weight.copy_(whitening.view_as(self.whiten.weight))

    def forward(self, images: Tensor) -> Tensor:
        x = self.groups(nn.functional.gelu(self.whiten(images)))
        return self.head(x.amax((2, 3))) * self.logit_scale


class ConvGroup(nn.Module):
    """``(N, in_channels, H, W)`` -> ``(N, out_channels, H // 2, W // 2)``."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = identity_conv(in_channels, out_channels)
        self.norm1 = norm(out_channels)
        self.conv2 = identity_conv(out_channels, out_channels)
        self.norm2 = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.conv1(x), 2)
        x = nn.functional.gelu(self.norm1(x))
        return nn.functional.gelu(self.norm2(self.conv2(x)))


def identity_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3 x 3 convolution whose first output channels start as its inputs."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight.data[:in_channels])
    return conv


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with a bias and no scale, which averages over the last few batches."""
    layer = nn.BatchNorm2d(channels, momentum=0.4)
    layer.weight.requires_grad_(False)
    return layer
