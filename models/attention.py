"""Self-attention, in the precision for which torch's kernel is fast."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.positions import rotate

MOST_TOKENS = 256  # with more, bf16 is at least as fast
# takes the keys and values of new tokens, returns those of all tokens so far
Extend = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class SelfAttention(nn.Module):
    """Multi-head self-attention on ``(N, T, width)`` (arXiv:1706.03762).

    Args:
        width: channels of a token; a multiple of ``num_heads``.
        dropout: dropout rate of the attention weights.
        is_causal: a token attends only to itself and earlier ones.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        bias: bool = True,
        dropout: float = 0.0,
        is_causal: bool = False,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"num_heads={num_heads} must divide width={width}")
        self.num_heads = num_heads
        self.dropout = dropout
        self.is_causal = is_causal
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out_proj = nn.Linear(width, width, bias=bias)

    def forward(
        self,
        x: Tensor,
        table: Tensor | None = None,
        mask: Tensor | None = None,
        extend: Extend | None = None,
    ) -> Tensor:
        """Attend; the output has the shape of ``x``.

        Args:
            table: rotary angles, see :func:`models.positions.rotary_table`.
            mask: replaces ``is_causal``, see :func:`attend`.
            extend: appends to a key-value cache and returns all keys and values.
        """
        count, length, width = x.shape
        qkv = to_attention_dtype(self.qkv(x)).view(count, length, 3, self.num_heads, -1)
        qkv = qkv.permute(2, 0, 3, 1, 4)  # queries, keys, values: each (N, heads, T, head_width)
        both, values = qkv.split([2, 1])  # its gradient is one concatenation, unlike indexing's
        queries, keys = both if table is None else rotate(both, table)
        values = values.squeeze(0)
        if extend is not None:
            keys, values = extend(keys, values)
        attended = attend(
            queries,
            keys,
            values,
            mask,
            dropout=self.dropout if self.training else 0.0,
            # a single token is the last one and attends to all
            is_causal=self.is_causal and mask is None and length > 1,
        )
        return self.out_proj(attended.transpose(1, 2).reshape(count, length, width))


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
) -> Tensor:
    """``softmax(queries @ keys.T / sqrt(width) + mask) @ values`` (arXiv:1706.03762).

    On CPUs, short sequences are computed in fp32 even under autocast: the backward of torch's
    kernel is up to several times slower in bf16 there.

    Args:
        queries: ``(..., T, width)``; ``keys`` and ``values`` ``(..., S, width)``.
        mask: ``(T, S)`` or with the leading dimensions: true where attention is allowed, or a bias.
        dropout: dropout rate of the attention weights.

    Returns:
        ``(..., T, width)``, in fp32 where :func:`attends_in_fp32`.
    """
    if not attends_in_fp32(queries):
        return F.scaled_dot_product_attention(queries, keys, values, mask, dropout, is_causal)
    queries, keys, values = queries.float(), keys.float(), values.float()
    if mask is not None and mask.is_floating_point():
        mask = mask.float()
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(queries, keys, values, mask, dropout, is_causal)


def attends_in_fp32(x: Tensor) -> bool:
    """Whether :func:`attend` computes ``(..., T, width)`` in fp32 even under autocast."""
    is_on_cpu = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return is_on_cpu and x.shape[-2] <= MOST_TOKENS and x.dtype != torch.float64


def to_attention_dtype(x: Tensor) -> Tensor:
    """Cast ``(..., T, width)`` to the precision that :func:`attend` computes in."""
    return x.float() if attends_in_fp32(x) else x
