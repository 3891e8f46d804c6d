"""The building blocks: shapes, gradients, parameter counts."""

import pytest
import torch

from models.blocks import (
    Bottleneck,
    DepthwiseSeparable,
    Residual,
    SqueezeExcitation,
    conv_norm,
    flatten_map,
)
from models.build import num_parameters

BLOCKS = {
    "conv_norm": (lambda stride: conv_norm(8, 12, stride=stride), 8 * 12 * 9 + 2 * 12),
    "depthwise_separable": (
        lambda stride: DepthwiseSeparable(8, 12, stride),
        8 * 9 + 2 * 8 + 8 * 12 + 2 * 12,
    ),
    "residual": (
        lambda stride: Residual(8, 12, stride),
        8 * 12 * 9 + 12 * 12 * 9 + 8 * 12 + 3 * 2 * 12,
    ),
    "bottleneck": (
        lambda stride: Bottleneck(8, 12, stride),
        8 * 3 + 3 * 3 * 9 + 3 * 12 + 8 * 12 + 2 * (3 + 3 + 12 + 12),
    ),
}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", BLOCKS)
def test_shape_gradient_and_parameters(name, stride):
    make, parameters = BLOCKS[name]
    block = make(stride)
    images = torch.randn(2, 8, 15, 15, requires_grad=True)
    out = block(images)
    size = 15 if stride == 1 else 8
    assert out.shape == (2, 12, size, size)
    assert num_parameters(block) == parameters
    out.square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(p.grad.abs().sum() > 0 for p in block.parameters())


@pytest.mark.parametrize(("block_class", "last"), [(Residual, "conv2"), (Bottleneck, "conv3")])
def test_residual_applies_relu_after_the_addition(block_class, last):
    block = block_class(4, 4).eval()
    torch.nn.init.zeros_(block.get_submodule(last).conv.weight)  # the branch contributes nothing
    images = torch.randn(1, 4, 5, 5)
    assert torch.equal(block(images), images.relu())
    assert num_parameters(block.shortcut) == 0


def test_squeeze_excitation_rescales_channels_only():
    block = SqueezeExcitation(8, reduction=4)
    images = torch.rand(2, 8, 5, 5) + 1
    gates = block(images) / images
    assert gates.amin() > 0
    assert gates.amax() < 1
    assert torch.allclose(gates, gates[:, :, :1, :1].expand_as(gates))
    assert num_parameters(block) == 8 * 2 + 2 + 2 * 8 + 8


def test_flattening_follows_the_memory_of_channels_last():
    x = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    flat = flatten_map(x)
    assert flat.data_ptr() == x.data_ptr()
    assert torch.equal(flat.view(2, 4, 5, 3).permute(0, 3, 1, 2), x)
