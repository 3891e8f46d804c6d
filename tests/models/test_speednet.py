"""SpeedNet: initialization, and the test-time augmentation of its recipe."""

import torch
from torch.nn import functional as F

from models.speednet import ConvGroup, SpeedNet
from objectives.views import mean_over_views


def test_first_layer_whitens_training_patches():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200, 3, 18, 18, generator=generator)
    images = F.avg_pool2d(noise, 3, 1)  # neighbouring pixels are correlated
    model = SpeedNet(3, 10)
    model.initialize_from(images)
    found = model.whiten(images).transpose(0, 1).flatten(1)
    covariance = found @ found.T / found.shape[1]
    half = len(covariance) // 2
    torch.testing.assert_close(covariance[:half, :half], torch.eye(half), atol=0.06, rtol=0)
    torch.testing.assert_close(found[half:], -found[:half])
    assert not model.whiten.weight.requires_grad


def test_conv_group_starts_as_identity():
    group = ConvGroup(4, 6).eval()
    x = torch.rand(2, 4, 8, 8)
    assert torch.equal(group.conv1(x)[:, :4], x)
    assert group(x).shape == (2, 6, 4, 4)


def test_view_weights_follow_the_paper():
    weights = torch.randn(3, 6, 6)

    def model(images):
        return (images * weights).sum((1, 2, 3))[:, None]

    images = torch.randn(2, 3, 6, 6)
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    up, down = padded[:, :, :-2, :-2], padded[:, :, 2:, 2:]

    def pair(x):
        return (model(x) + model(x.flip(3))) / 2

    assert torch.equal(mean_over_views(model, [images], 1), model(images))
    torch.testing.assert_close(mean_over_views(model, [images], 2), pair(images))
    expected = pair(images) / 2 + pair(up) / 4 + pair(down) / 4
    torch.testing.assert_close(mean_over_views(model, [images], 6), expected)
