"""DCGAN and U-Net: shapes at every size, samples that are a function of the noise."""

import pytest
import torch
from torch import nn

from models.dcgan import DCGAN
from models.unet import Attention, TimeEmbedding, UNet


def dcgan(size, channels):
    return DCGAN(channels, size, latent_dim=16, width=8)


def unet(size=(28, 28), channels=1):
    return UNet(channels, size, 8, [1, 2, 2], 100, prediction="velocity", sample_steps=3)


@pytest.mark.parametrize(("size", "channels"), [((28, 28), 1), ((32, 32), 3), ((32, 64), 3)])
@pytest.mark.parametrize("make", [dcgan, unet])
def test_shapes_and_range(make, size, channels):
    model = make(size, channels).eval()
    images, same, other = (
        model.sample(2, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert images.shape == (2, channels, *size)
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(images, same)
    assert not torch.equal(images, other)
    if isinstance(model, DCGAN):
        assert model.discriminator(images).shape == (2,)
    else:
        assert model(images, torch.tensor([1, 100])).shape == images.shape


def test_dcgan_starts_as_the_papers():
    model = DCGAN(1, (64, 64), latent_dim=100, width=32)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() > 10_000:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1.0, abs=0.02)


def test_unet_attends_at_the_lowest_resolution_only_and_saves_the_schedule():
    model = unet()
    found = [name for name, module in model.named_modules() if isinstance(module, Attention)]
    assert found == ["encoder.2.attention", "decoder.0.attention"]
    assert "diffusion.alpha_bar" in model.state_dict()


def test_times_are_told_apart():
    times = TimeEmbedding(32, 64)(torch.arange(1, 1001))
    distances = torch.cdist(times, times) + torch.eye(1000)
    assert distances.min() > 0
