"""SpeedNet's first weights, and what its recipe is made of."""

import torch
from torch.nn import functional as F

from models.speednet import ConvGroup, SpeedNet
from objectives.views import mean_over_views


def test_the_first_layer_whitens_the_training_patches():
    generator = torch.Generator().manual_seed(0)
    images = F.avg_pool2d(
        torch.randn(200, 3, 18, 18, generator=generator), 3, 1
    )  # neighbours alike
    model = SpeedNet(3, 10)
    model.initialize_from(images)
    found = model.whiten(images).transpose(0, 1).flatten(1)
    covariance = found @ found.T / found.shape[1]
    half = len(covariance) // 2
    torch.testing.assert_close(covariance[:half, :half], torch.eye(half), atol=0.06, rtol=0)
    torch.testing.assert_close(found[half:], -found[:half])
    assert not model.whiten.weight.requires_grad


def test_a_group_begins_by_passing_on_what_it_is_given():
    group = ConvGroup(4, 6).eval()
    x = torch.rand(2, 4, 8, 8)
    assert torch.equal(group.conv1(x)[:, :4], x)
    assert group(x).shape == (2, 6, 4, 4)


def test_views_are_weighted_as_published():
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
