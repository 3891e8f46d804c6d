"""Building blocks for convolutional networks.

Every block maps ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``
(rounded up). Convolutions that are followed by a batch norm carry no bias.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    """Convolution with "same" padding, then batch norm; no activation."""
    padding = kernel_size // 2
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False
    )
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(out_channels)))


class DepthwiseSeparable(nn.Module):
    """Depthwise 3x3 convolution followed by a pointwise one (MobileNet, arXiv:1704.04861).

    Costs ``9 * in + in * out`` weights where a full 3x3 convolution costs ``9 * in * out``.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = conv_norm(in_channels, in_channels, 3, stride, groups=in_channels)
        self.pointwise = conv_norm(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.pointwise(torch.relu(self.depthwise(x))))


class SqueezeExcitation(nn.Module):
    """Rescale each channel by a gate computed from all channels' means (arXiv:1709.01507)."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.relu(self.squeeze(mean_of_map(x)))
        return x * torch.sigmoid(self.excite(gate))[:, :, None, None]


def flatten_map(x: Tensor) -> Tensor:
    """``(N, C, H, W)`` -> ``(N, H * W * C)``; no copy where the map is ``channels_last``."""
    return x.permute(0, 2, 3, 1).flatten(1)


def mean_of_map(x: Tensor) -> Tensor:
    """``(N, C, H, W)`` -> ``(N, C)``, global average pooling.

    The gradient of ``x.mean((2, 3))`` is not in ``channels_last``, so every sum with it transposes
    memory: a tenth of an update of LightCNN.
    """
    return x.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


def downsampled_size(image_size: tuple[int, int], factor: int, why: str = "") -> tuple[int, int]:
    """Height and width of an image divided by ``factor``.

    Raises:
        ValueError: if they are not divisible; ``why`` ends the message.
    """
    height, width = image_size
    if height % factor or width % factor:
        raise ValueError(f"image_size {height}x{width} must be a multiple of {factor}{why}")
    return height // factor, width // factor


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The identity, or a 1x1 projection if the shape changes."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return conv_norm(in_channels, out_channels, 1, stride)


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut, ReLU after the addition (arXiv:1512.03385, fig. 2)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv_norm(in_channels, out_channels, 3, stride)
        self.conv2 = conv_norm(out_channels, out_channels, 3)
        self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(torch.relu(self.conv1(x)))
        return torch.relu(out + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut, ReLU after the addition (arXiv:1512.03385).

    The 3x3 convolution works on a quarter of the channels and carries the stride (in the paper
    the first 1x1 does, which throws three quarters of its input away).

    Args:
        out_channels: a multiple of 4.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        hidden = out_channels // 4
        self.conv1 = conv_norm(in_channels, hidden, 1)
        self.conv2 = conv_norm(hidden, hidden, 3, stride)
        self.conv3 = conv_norm(hidden, out_channels, 1)
        self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv3(torch.relu(self.conv2(torch.relu(self.conv1(x)))))
        return torch.relu(out + self.shortcut(x))
