"""Scaled dot-product attention in the precision in which torch's kernel is fast."""

import torch
from torch import Tensor
from torch.nn import functional as F

HALF = (torch.bfloat16, torch.float16)
MOST_TOKENS = 256  # with more, bf16 is as fast or faster


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
) -> Tensor:
    """``softmax(queries @ keys.T / sqrt(width) + mask) @ values`` (arXiv:1706.03762).

    On CPUs, for few tokens, in single precision whatever autocast says: there the gradient of
    torch's kernel takes up to several times as long in bf16.

    Args:
        queries: ``(..., T, width)``; ``keys`` and ``values`` ``(..., S, width)``.
        mask: ``(T, S)``, or with the leading dimensions: true where it may look, or what to add.
        dropout: share of the weights dropped.

    Returns:
        ``(..., T, width)``; of single precision where it works in that.
    """
    if not attends_in_fp32(queries):
        return F.scaled_dot_product_attention(queries, keys, values, mask, dropout, is_causal)
    queries, keys, values = to_fp32(queries), to_fp32(keys), to_fp32(values)
    mask = None if mask is None else to_fp32(mask)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(queries, keys, values, mask, dropout, is_causal)


def attends_in_fp32(x: Tensor) -> bool:
    """Whether :func:`attend` computes ``(..., T, width)`` in fp32, whatever autocast says."""
    is_short = x.shape[-2] <= MOST_TOKENS
    return is_short and x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


def to_attention_dtype(x: Tensor) -> Tensor:
    """``(..., T, width)`` in the precision that :func:`attend` computes in."""
    return to_fp32(x) if attends_in_fp32(x) else x


def to_fp32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in HALF else x
