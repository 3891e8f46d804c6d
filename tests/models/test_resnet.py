"""ResNets: sizes, agreement with torchvision's, initialization."""

import pytest
import torch
from torchvision import models as torchvision_models

from models.build import num_parameters
from models.resnet import resnet18, resnet34, resnet50


@pytest.mark.parametrize(
    ("make", "parameters"),
    [(resnet18, 11_173_962), (resnet34, 21_282_122), (resnet50, 23_520_842)],
)
def test_size_for_small_images(make, parameters):
    assert num_parameters(make(in_channels=3, num_classes=10)) == parameters


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_agrees_with_torchvision(name):
    theirs = torchvision_models.get_model(name, num_classes=7).eval()
    make = {"resnet18": resnet18, "resnet50": resnet50}[name]
    ours = make(in_channels=3, num_classes=7, stem="imagenet").eval()
    names, values = ours.state_dict().keys(), theirs.state_dict().values()
    ours.load_state_dict(dict(zip(names, values, strict=True)))
    images = torch.randn(2, 3, 65, 64)
    assert torch.allclose(ours(images), theirs(images), atol=1e-5)


def test_every_parameter_gets_a_gradient():
    model = resnet18(in_channels=1, num_classes=10)
    logits = model(torch.randn(2, 1, 12, 12))
    assert logits.shape == (2, 10)
    logits.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("make", [resnet18, resnet50])
def test_zero_initialized_blocks_begin_as_their_shortcuts(make):
    model = make(in_channels=1, num_classes=10, zero_init_residual=True).eval()
    block = model.stages[0][1]
    images = torch.randn(1, block.conv1.conv.in_channels, 4, 4)
    assert torch.equal(block(images), images.relu())


def test_unknown_stem_is_refused():
    with pytest.raises(ValueError, match="stem=large"):
        resnet18(in_channels=3, num_classes=10, stem="large")
