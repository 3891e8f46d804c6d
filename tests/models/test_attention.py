"""Attention is the published formula; under autocast on a CPU it works in single precision."""

import math

import pytest
import torch
from torch.nn import functional as F

from models.attention import MOST_TOKENS, SelfAttention, attend, to_attention_dtype
from models.positions import alibi_bias, rotary_table, rotate


@pytest.mark.parametrize("kind", ["full", "causal", "rotary", "alibi"])
def test_self_attention_is_the_published_formula(kind):
    attention, x = SelfAttention(32, 4, is_causal=kind != "full"), torch.randn(2, 9, 32)
    queries, keys, values = (
        part.view(2, 9, 4, 8).transpose(1, 2) for part in attention.qkv(x).chunk(3, -1)
    )
    table = rotary_table(9, 8) if kind == "rotary" else None
    if table is not None:
        queries, keys = rotate(queries, table), rotate(keys, table)
    scores = queries @ keys.transpose(2, 3) / math.sqrt(8)
    distance = torch.arange(9)[:, None] - torch.arange(9)
    if kind == "alibi":
        scores = scores - torch.tensor([2**-2, 2**-4, 2**-6, 2**-8])[:, None, None] * distance
    if kind != "full":
        scores = scores.masked_fill(distance < 0, float("-inf"))
    attended = (scores.softmax(-1) @ values).transpose(1, 2).reshape(2, 9, 32)
    found = attention(x, table, alibi_bias(4, 9) if kind == "alibi" else None)
    assert torch.allclose(found, attention.out_proj(attended), atol=1e-5)


def arguments(dtype, mask=False):
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (
        torch.randn(2, 3, 5, 8, generator=generator).to(dtype).requires_grad_() for _ in range(3)
    )
    bias = torch.randn(5, 5, generator=generator).to(dtype) if mask else None
    return queries, keys, values, bias


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("mask", [False, True])
def test_without_autocast_it_is_torchs_own(dtype, mask):
    given = arguments(dtype, mask)
    found = attend(*given)
    assert found.dtype == dtype
    assert torch.equal(found, F.scaled_dot_product_attention(*given))
    assert to_attention_dtype(given[0]) is given[0]


@pytest.mark.parametrize("mask", ["none", "causal", "added", "boolean"])
def test_under_autocast_values_and_gradients_are_those_of_single_precision(mask):
    *given, bias = arguments(torch.bfloat16, mask=True)
    bias[:, 0] = 0.5  # somewhere to look
    bias = {"added": bias, "boolean": bias > 0}.get(mask)
    is_causal = mask == "causal"
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(*given, bias, is_causal=is_causal)
    assert found.dtype == torch.float32
    found.sum().backward()
    wide = [x.detach().float().requires_grad_() for x in given]
    bias = bias.float() if mask == "added" else bias
    expected = F.scaled_dot_product_attention(*wide, bias, is_causal=is_causal)
    expected.sum().backward()
    assert torch.equal(found, expected)
    for low, high in zip(given, wide, strict=True):
        assert torch.equal(low.grad, high.grad.bfloat16())


def test_many_tokens_and_double_precision_are_left_to_torch():
    queries = torch.randn(1, MOST_TOKENS + 1, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert attend(queries, queries, queries).dtype == torch.bfloat16
        assert to_attention_dtype(queries.bfloat16()).dtype == torch.bfloat16
        # one that comes after many: decided by the queries alone
        assert attend(queries[:, :1], queries.bfloat16(), queries).dtype == torch.float32
        assert attend(*arguments(torch.float64)).dtype == torch.float64
