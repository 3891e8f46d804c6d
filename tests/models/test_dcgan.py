"""The generator and the discriminator fit each other at every size."""

import pytest
import torch
from torch import nn

from models.dcgan import DCGAN


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3), (64, 3)])
def test_shapes_and_range(size, channels):
    model = DCGAN(channels, (size, size), latent_dim=16, width=8)
    images = model.sample(5, torch.Generator().manual_seed(0))
    assert images.shape == (5, channels, size, size)
    assert images.min() >= 0
    assert images.max() <= 1
    assert model.discriminator(images).shape == (5,)


def test_sides_may_differ():
    model = DCGAN(1, (32, 64), latent_dim=16, width=8)
    images = model.generate(model.noise(2))
    assert images.shape == (2, 1, 32, 64)
    assert model.discriminator(images).shape == (2,)


def test_samples_are_a_function_of_the_noise():
    model = DCGAN(1, (28, 28), latent_dim=16, width=8).eval()
    first, second, other = (
        model.sample(3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_start_is_the_papers():
    model = DCGAN(1, (64, 64), latent_dim=100, width=32)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() > 10_000:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1.0, abs=0.02)


def test_odd_size_is_refused():
    with pytest.raises(ValueError, match="30x30 must be a multiple of 4"):
        DCGAN(1, (30, 30), latent_dim=16, width=8)
