"""The U-Net: shapes at every size, knowledge of the time, sampling."""

import pytest
import torch

from models.unet import Attention, TimeEmbedding, UNet


def small(size=28, channels=1, **settings):
    defaults = {"width": 8, "multipliers": [1, 2, 2], "num_steps": 100, "sample_steps": 3}
    return UNet(channels, (size, size), **{**defaults, "prediction": "velocity", **settings})


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3), (64, 3)])
def test_shapes_and_range(size, channels):
    model = small(size, channels)
    x = torch.randn(2, channels, size, size)
    assert model(x, torch.tensor([1, 100])).shape == x.shape
    images = model.sample(2, torch.Generator().manual_seed(0))
    assert images.shape == x.shape
    assert images.min() >= 0
    assert images.max() <= 1


def test_attention_is_at_the_lowest_resolution_only():
    model = small(multipliers=[1, 2, 2])
    found = [name for name, module in model.named_modules() if isinstance(module, Attention)]
    assert found == ["encoder.2.attention", "decoder.0.attention"]


def test_everything_is_used():
    model = small()
    with torch.no_grad():  # blocks and head start at zero, which would hide what is behind them
        for parameter in model.parameters():
            parameter.normal_(0, 0.1)
    model(torch.randn(2, 1, 28, 28), torch.tensor([3, 60])).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_times_are_told_apart():
    embedding = TimeEmbedding(32, 64)
    times = embedding(torch.arange(1, 1001))
    distances = torch.cdist(times, times) + torch.eye(1000)
    assert distances.min() > 0


def test_the_schedule_is_saved_with_the_weights():
    assert "diffusion.alpha_bar" in small().state_dict()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 30}, "30x30 must be a multiple of 4 for the 3 levels"),
        ({"width": 12}, "width=12 must be a multiple of 8"),
        ({"sample_steps": 101}, "sample_steps=101 must be in 1..num_steps=100"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)
