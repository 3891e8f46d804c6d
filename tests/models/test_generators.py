"""DCGAN and U-Net: shapes at every size, samples that are a function of the noise."""

import pytest
import torch
from torch import nn

from models.dcgan import DCGAN
from models.unet import Attention, TimeEmbedding, UNet


def dcgan(size=(28, 28), channels=1):
    return DCGAN(channels, size, latent_dim=16, width=8)


def unet(size=(28, 28), channels=1, **settings):
    defaults = {"width": 8, "multipliers": [1, 2, 2], "num_steps": 100, "sample_steps": 3}
    return UNet(channels, size, **{**defaults, "prediction": "velocity", **settings})


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


def test_unet_attends_at_the_lowest_resolution_only():
    found = [name for name, module in unet().named_modules() if isinstance(module, Attention)]
    assert found == ["encoder.2.attention", "decoder.0.attention"]


def test_everything_in_the_unet_is_used_and_the_schedule_saved():
    model = unet()
    assert "diffusion.alpha_bar" in model.state_dict()
    with torch.no_grad():  # blocks and head start at zero, which would hide what is behind them
        for parameter in model.parameters():
            parameter.normal_(0, 0.1)
    model(torch.randn(2, 1, 28, 28), torch.tensor([3, 60])).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_times_are_told_apart():
    times = TimeEmbedding(32, 64)(torch.arange(1, 1001))
    distances = torch.cdist(times, times) + torch.eye(1000)
    assert distances.min() > 0


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (dcgan, {"size": (30, 30)}, "30x30 must be a multiple of 4"),
        (unet, {"size": (30, 30)}, "30x30 must be a multiple of 4 for the 3 levels"),
        (unet, {"width": 12}, "width=12 must be a multiple of 8"),
        (unet, {"sample_steps": 101}, "sample_steps=101 must be in 1..num_steps=100"),
        (unet, {"sample_steps": 0}, "sample_steps=0 must be in 1..num_steps=100"),
        (unet, {"prediction": "image"}, "prediction=image should be velocity or noise"),
    ],
)
def test_settings_that_do_not_fit_are_refused(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)
