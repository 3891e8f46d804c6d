"""Relative positions for attention: only the distance between two tokens matters.

Rotary embeddings rotate queries and keys before their product; ALiBi adds a bias to the product.
"""

import torch
from torch import Tensor

ROTARY_BASE = 10_000.0


def rotary_table(length: int, head_width: int) -> Tensor:
    """Cosines and signed sines of the rotary angles (RoFormer, arXiv:2104.09864).

    Position ``p`` rotates pair ``i`` of a head's channels by ``p / 10000 ** (2i / head_width)``.
    A pair is the channels ``i`` and ``i + head_width / 2``.

    Returns:
        ``(2, length, head_width)``, for :func:`rotate`.
    """
    rates = ROTARY_BASE ** (-torch.arange(0, head_width, 2) / head_width)
    angles = torch.arange(length)[:, None] * rates
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([torch.cat([cos, cos], 1), torch.cat([-sin, sin], 1)])


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate every pair of channels by the angle of its position.

    Args:
        x: ``(..., T, head_width)``.
        table: ``(2, T, head_width)``, the rows of these positions.
    """
    cos, sin = table
    partner = x.roll(x.shape[-1] // 2, -1)
    return (x * cos + partner * sin).type_as(x)


def alibi_bias(num_heads: int, length: int) -> Tensor:
    """Attention bias growing with the distance, one slope per head (ALiBi, arXiv:2108.12409).

    Returns:
        ``(num_heads, length, length)``: ``-slope * (query - key)``, minus infinity for later keys.
        The slopes fall geometrically from ``2 ** (-8 / num_heads)`` to 1/256.
    """
    slopes = 2.0 ** (-8.0 * torch.arange(1, num_heads + 1) / num_heads)
    places = torch.arange(length)
    distance = places[:, None] - places
    bias = -slopes[:, None, None] * distance
    return bias.masked_fill(distance < 0, float("-inf"))
