"""The vision transformer: attention, positions, sizes."""

import pytest
import torch

from models.attention import SelfAttention
from models.vit import VisionTransformer


def small_vit(**changes):
    settings = {
        "in_channels": 1,
        "num_classes": 10,
        "image_size": (8, 12),
        "patch_size": 4,
        "width": 16,
        "depth": 2,
        "num_heads": 2,
        "dropout": 0.0,
    }
    return VisionTransformer(**{**settings, **changes})


def test_shape_and_gradients():
    model = small_vit()
    logits = model(torch.randn(2, 1, 8, 12))
    assert logits.shape == (2, 10)
    logits.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_attention_is_the_published_formula():
    attention = SelfAttention(width=6, num_heads=2)
    x = torch.randn(1, 5, 6)
    query, key, value = attention.qkv(x).chunk(3, -1)
    heads = []
    for columns in (slice(0, 3), slice(3, 6)):
        scores = query[..., columns] @ key[..., columns].transpose(1, 2) / 3**0.5
        heads.append(scores.softmax(-1) @ value[..., columns])
    expected = attention.out_proj(torch.cat(heads, -1))
    assert torch.allclose(attention(x), expected, atol=1e-6)


def test_positions_tell_patches_apart_and_nothing_else_does():
    model = small_vit().eval()
    images = torch.randn(1, 1, 8, 12)
    mirrored_patches = torch.cat([images[:, :, 4:], images[:, :, :4]], 2)
    assert not torch.allclose(model(images), model(mirrored_patches), atol=1e-4)
    torch.nn.init.zeros_(model.positions)
    assert torch.allclose(model(images), model(mirrored_patches), atol=1e-5)


def test_settings_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="8x12 must be a multiple of 5, the patch_size"):
        small_vit(patch_size=5)
    with pytest.raises(ValueError, match="num_heads=3"):
        small_vit(num_heads=3)
