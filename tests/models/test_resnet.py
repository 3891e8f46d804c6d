"""ResNets: agreement with torchvision, and zero-initialized residual branches."""

import pytest
import torch
from torchvision import models as torchvision_models

from models.resnet import ResNet


@pytest.mark.parametrize("depth", [18, 50])
def test_resnet_equals_torchvision(depth):
    theirs = torchvision_models.get_model(f"resnet{depth}", num_classes=7).eval()
    ours = ResNet(depth, in_channels=3, num_classes=7, stem="imagenet").eval()
    names, values = ours.state_dict().keys(), theirs.state_dict().values()
    ours.load_state_dict(dict(zip(names, values, strict=True)))
    images = torch.randn(2, 3, 65, 64)
    assert torch.allclose(ours(images), theirs(images), atol=1e-5)


@pytest.mark.parametrize("depth", [18, 50])
def test_zero_initialized_block_starts_as_its_shortcut(depth):
    model = ResNet(depth, in_channels=1, num_classes=10, zero_init_residual=True).eval()
    block = model.stages[0][1]
    images = torch.randn(1, block.conv1.conv.in_channels, 4, 4)
    assert torch.equal(block(images), images.relu())
