"""Building blocks of convolutional networks; ``test_resnet.py`` tests those of ResNets."""

import torch

from models.blocks import SqueezeExcitation, flatten_map
from models.build import num_parameters


def test_squeeze_excitation_rescales_channels_only():
    block = SqueezeExcitation(8, reduction=4)
    images = torch.rand(2, 8, 5, 5) + 1
    gates = block(images) / images
    assert gates.amin() > 0
    assert gates.amax() < 1
    assert torch.allclose(gates, gates[:, :, :1, :1].expand_as(gates))
    assert num_parameters(block) == 8 * 2 + 2 + 2 * 8 + 8


def test_flatten_map_does_not_copy_channels_last():
    x = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    flat = flatten_map(x)
    assert flat.data_ptr() == x.data_ptr()
    assert torch.equal(flat.view(2, 4, 5, 3).permute(0, 3, 1, 2), x)
