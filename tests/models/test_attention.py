"""Attention equals the published formula; under autocast on a CPU it computes in fp32."""

import math

import pytest
import torch
from torch.nn import functional as F

from models.attention import MOST_TOKENS, SelfAttention, attend, to_attention_dtype
from models.positions import alibi_bias, rotary_table, rotate


@pytest.mark.parametrize("kind", ["full", "causal", "rotary", "alibi"])
def test_self_attention_equals_published_formula(kind):
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


def attention_inputs(dtype, mask=False):
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (
        torch.randn(2, 3, 5, 8, generator=generator).to(dtype).requires_grad_() for _ in range(3)
    )
    bias = torch.randn(5, 5, generator=generator).to(dtype) if mask else None
    return queries, keys, values, bias


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("mask", [False, True])
def test_attend_without_autocast_equals_torch(dtype, mask):
    inputs = attention_inputs(dtype, mask)
    found = attend(*inputs)
    assert found.dtype == dtype
    assert torch.equal(found, F.scaled_dot_product_attention(*inputs))
    assert to_attention_dtype(inputs[0]) is inputs[0]


@pytest.mark.parametrize("mask", ["none", "causal", "added", "boolean"])
def test_attend_under_autocast_equals_fp32(mask):
    """Outputs and gradients of bf16 inputs are bit-identical to those of the inputs in fp32."""
    *inputs, bias = attention_inputs(torch.bfloat16, mask=True)
    bias[:, 0] = 0.5  # so that the boolean mask leaves every query a key
    bias = {"added": bias, "boolean": bias > 0}.get(mask)
    is_causal = mask == "causal"
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(*inputs, bias, is_causal=is_causal)
    assert found.dtype == torch.float32
    found.sum().backward()
    fp32_inputs = [x.detach().float().requires_grad_() for x in inputs]
    bias = bias.float() if mask == "added" else bias
    expected = F.scaled_dot_product_attention(*fp32_inputs, bias, is_causal=is_causal)
    expected.sum().backward()
    assert torch.equal(found, expected)
    for low, high in zip(inputs, fp32_inputs, strict=True):
        assert torch.equal(low.grad, high.grad.bfloat16())


def test_attend_keeps_dtype_of_long_or_fp64_inputs():
    queries = torch.randn(1, MOST_TOKENS + 1, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert attend(queries, queries, queries).dtype == torch.bfloat16
        assert to_attention_dtype(queries.bfloat16()).dtype == torch.bfloat16
        # one query with many keys in the cache: only the number of queries matters
        assert attend(queries[:, :1], queries.bfloat16(), queries).dtype == torch.float32
        assert attend(*attention_inputs(torch.float64)).dtype == torch.float64
