"""U-Net for diffusion on small images: time-conditioned residual blocks, attention at the bottom.

The encoder halves the map at each level; the decoder doubles it and concatenates the encoder's map
of the same size (arXiv:1505.04597, arXiv:2006.11239).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention import attend
from models.blocks import downsampled_size
from models.diffusion import CosineDiffusion, Prediction
from models.generative import GenerativeModel

GROUPS = 8  # groups of every GroupNorm; channels are multiples of it
LONGEST_PERIOD = 10_000.0  # of the time embedding, in steps


class UNet(GenerativeModel):
    """Noisy images ``(N, C, H, W)`` and times ``(N,)`` -> the diffusion's prediction.

    Args:
        image_size: height and width in pixels; divisible by 2 for every level but the first.
        width: channels of the first level, a multiple of 8.
        multipliers: channels of each level, as multiples of ``width``; attention at the last.
        num_steps, prediction: see :class:`models.diffusion.CosineDiffusion`.
        sample_steps: DDIM steps, one network evaluation each; may be changed after training.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: tuple[int, int],
        width: int,
        multipliers: Sequence[int],
        num_steps: int,
        prediction: Prediction,
        sample_steps: int,
    ) -> None:
        super().__init__()
        why = f" for the {len(multipliers)} levels of multipliers={list(multipliers)}"
        downsampled_size(image_size, 2 ** (len(multipliers) - 1), why)
        if width < GROUPS or width % GROUPS:
            raise ValueError(f"width={width} must be a multiple of {GROUPS}")
        if not 1 <= sample_steps <= num_steps:
            raise ValueError(f"sample_steps={sample_steps} must be in 1..num_steps={num_steps}")
        self.noise_shape = (in_channels, *image_size)
        self.sample_steps = sample_steps
        self.diffusion = CosineDiffusion(num_steps, prediction)
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        self.time = TimeEmbedding(width, 4 * width)
        widths = [width * multiplier for multiplier in multipliers]
        bottom = widths[-1]
        self.encoder = nn.ModuleList(
            Level(above, channels, 4 * width, has_attention=level == len(widths))
            for level, (above, channels) in enumerate(pairwise([width, *widths]), start=1)
        )
        self.middle = Level(bottom, bottom, 4 * width, has_attention=False)
        self.decoder = nn.ModuleList(
            Level(below + channels, channels, 4 * width, has_attention=level == 1)
            for level, (below, channels) in enumerate(pairwise([bottom, *widths[::-1]]), start=1)
        )
        self.downs = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) for channels in widths[:-1]
        )
        self.head = nn.Sequential(
            nn.GroupNorm(GROUPS, width), nn.SiLU(), zeroed(nn.Conv2d(width, in_channels, 3, 1, 1))
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = self.time(t)
        x = self.stem(x)
        skips = []
        for i, level in enumerate(self.encoder):
            x = level(self.downs[i - 1](x) if i else x, time)
            skips.append(x)
        x = self.middle(x, time)
        for i, level in enumerate(self.decoder):
            x = F.interpolate(x, scale_factor=2) if i else x
            x = level(torch.cat([x, skips.pop()], 1), time)
        return self.head(x)

    def generate(self, noise: Tensor) -> Tensor:
        return self.diffusion.ddim(self, noise, self.sample_steps)


class Level(nn.Module):
    """One resolution: a residual block, then optional attention."""

    def __init__(
        self, in_channels: int, out_channels: int, time_dim: int, has_attention: bool
    ) -> None:
        super().__init__()
        self.block = TimedResidual(in_channels, out_channels, time_dim)
        self.attention = Attention(out_channels) if has_attention else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.attention(self.block(x, time))


class TimedResidual(nn.Module):
    """Two stages of norm, SiLU and convolution, the time added in between, and a shortcut.

    The second convolution starts at zero, so that the block starts as its shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, time_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(time_dim, out_channels)
        self.norm2 = nn.GroupNorm(GROUPS, out_channels)
        self.conv2 = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        out = self.conv1(F.silu(self.norm1(x)))
        out = out + self.time(time)[:, :, None, None]
        return self.conv2(F.silu(self.norm2(out))) + self.shortcut(x)


class Attention(nn.Module):
    """Single-head self-attention over the positions of a map, with a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        # (N, 3 * channels, H, W) -> three of (N, H * W, channels)
        query, key, value = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=2)
        mixed = attend(query, key, value)
        return x + self.out(mixed.transpose(1, 2).reshape(x.shape))


class TimeEmbedding(nn.Module):
    """Times ``(N,)`` -> ``(N, time_dim)``: sines and cosines of many periods, then an MLP."""

    frequencies: Tensor

    def __init__(self, width: int, time_dim: int) -> None:
        super().__init__()
        exponents = torch.arange(width // 2) / (width // 2)
        frequencies = torch.exp(-math.log(LONGEST_PERIOD) * exponents)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, time_dim), nn.SiLU(), nn.Linear(time_dim, time_dim), nn.SiLU()
        )

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None].float() * self.frequencies
        return self.mlp(torch.cat([angles.sin(), angles.cos()], 1))


def zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv
