"""Scaled dot-product attention in the precision in which torch's kernel is fast."""

import torch
from torch import Tensor
from torch.nn import functional as F

HALF = (torch.bfloat16, torch.float16)


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
) -> Tensor:
    """``softmax(queries @ keys.T / sqrt(width) + mask) @ values`` (arXiv:1706.03762).

    On CPUs in single precision whatever autocast says: there the gradient of torch's kernel takes
    several times as long in bf16, up to some hundred tokens (benchmarks/speed.md).

    Args:
        queries: ``(..., T, width)``; ``keys`` and ``values`` ``(..., S, width)``.
        mask: ``(T, S)``, or with the leading dimensions: true where it may look, or what to add.
        dropout: share of the weights dropped.

    Returns:
        ``(..., T, width)``; on CPUs of single precision where the arguments have half.
    """
    if not is_wide(queries):
        return F.scaled_dot_product_attention(queries, keys, values, mask, dropout, is_causal)
    queries, keys, values = (widened(x) for x in (queries, keys, values))
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(queries, keys, values, mask, dropout, is_causal)


def is_wide(x: Tensor) -> bool:
    """Whether :func:`attend` works in single precision although autocast says half."""
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


def widened(x: Tensor) -> Tensor:
    """In the precision that :func:`attend` works in."""
    return x.float() if is_wide(x) and x.dtype in HALF else x
