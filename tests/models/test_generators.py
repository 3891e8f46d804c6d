"""DCGAN and U-Net: reproducible samples of the right shape, initialization, time embeddings."""

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
def test_sample_shape_range_and_reproducibility(make, size, channels):
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


def test_dcgan_initialization_follows_the_paper():
    """Weights are drawn with a standard deviation of 0.02 (arXiv:1511.06434)."""
    model = DCGAN(1, (64, 64), latent_dim=100, width=32)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() > 10_000:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1.0, abs=0.02)


def test_unet_attends_only_at_the_lowest_resolution():
    found = [name for name, module in unet().named_modules() if isinstance(module, Attention)]
    assert found == ["encoder.2.attention", "decoder.0.attention"]


def test_unet_state_dict_has_the_noise_schedule():
    assert "diffusion.alpha_bar" in unet().state_dict()


def test_time_embeddings_are_distinct():
    times = TimeEmbedding(32, 64)(torch.arange(1, 1001))
    distances = torch.cdist(times, times) + torch.eye(1000)
    assert distances.min() > 0
