"""Augmentations: every sample has its own random draw, however the batch is split."""

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from core.errors import ConfigError
from core.instantiate import instantiate
from data.augment import AlternatingFlip, Cutout, HorizontalFlip, PerImage, RandomAffine, RandomCrop
from data.draws import BatchDraws

AUGMENTATIONS = [
    RandomCrop(2),
    HorizontalFlip(),
    Cutout(4),
    RandomAffine(),
    PerImage(v2.Compose([v2.RandomRotation(30), v2.ColorJitter(0.5)])),
]


@pytest.mark.parametrize(
    ("augment", "settings"),
    [
        (RandomCrop, {"padding": -1}),
        (HorizontalFlip, {"p": 50}),
        (Cutout, {"size": 0}),
        (RandomAffine, {"scale": 1.1}),
        (RandomAffine, {"translate": 4}),  # in pixels, but it should be a fraction
    ],
)
def test_setting_out_of_range_is_rejected(augment, settings):
    (name,) = settings
    node = {"_target_": f"data.augment.{augment.__name__}", **settings}
    with pytest.raises(
        ConfigError, match=rf"^data\.augment\[0\]\.{name}=.* should be (less|greater)"
    ):
        instantiate([node], "data.augment")


class FixedDraws:
    """Stands for ``BatchDraws`` and returns the given numbers."""

    def __init__(self, rows):
        self.rows = torch.tensor(rows)

    def uniform(self, *shape):
        return self.rows.view(-1, *shape)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (6, 3, 10, 12), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("augment", AUGMENTATIONS, ids=lambda augment: type(augment).__name__)
def test_draws_differ_by_sample_and_update_but_not_by_slice(augment, images):
    before = images.clone()
    augmented = augment(images, BatchDraws(0, 1, 2, 6, 0, 6))
    slices = [augment(images[i : i + 2], BatchDraws(0, 1, 2, 6, i, i + 2)) for i in (0, 2, 4)]
    assert torch.equal(augmented, torch.cat(slices))
    assert torch.equal(images, before)
    assert (augmented.dtype, augmented.shape) == (torch.uint8, images.shape)
    copies = images[:1].expand(32, 3, 10, 12)
    first = augment(copies, BatchDraws(0, 0, 0, 32, 0, 32))
    assert len(first.flatten(1).unique(dim=0)) > 1
    for key in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):  # seed, epoch, step
        assert not torch.equal(first, augment(copies, BatchDraws(*key, 32, 0, 32)))


def test_alternating_flip_shows_both_sides_in_two_epochs(images):
    """A flip depends on the image's index and the epoch, not on the position in the batch."""

    def flipped(epoch, samples, seed=0):
        draws = BatchDraws(seed, epoch, 0, 6, 0, 6, samples=samples)
        augmented = AlternatingFlip()(images[samples], draws)
        return (augmented != images[samples]).flatten(1).any(1)

    order = torch.tensor([3, 1, 5, 0, 2, 4])
    first, second = flipped(0, torch.arange(6)), flipped(1, order)
    assert torch.equal(second, ~first[order])
    assert torch.equal(flipped(2, order), first[order])
    coins = BatchDraws(0, 0, 0, 1000, 0, 1000, samples=torch.arange(1000)).coins().float()
    assert 0.45 < coins.mean() < 0.55
    assert 0.4 < (coins[1:] != coins[:-1]).float().mean() < 0.6
    other_seed = BatchDraws(1, 0, 0, 1000, 0, 1000, samples=torch.arange(1000)).coins().float()
    assert 0.4 < (coins != other_seed).float().mean() < 0.6


def test_reflect_crop_mirrors_the_border(images):
    corner = RandomCrop(2, reflect=True)(images, FixedDraws([[0.0, 0.0]] * 6))
    expected = F.pad(images.float(), (2, 2, 2, 2), mode="reflect")[:, :, :10, :12]
    assert torch.equal(corner, expected.to(torch.uint8))
    with pytest.raises(ValueError, match="padding=10 should be below the image's size"):
        RandomCrop(10, reflect=True)(images, FixedDraws([[0.0, 0.0]] * 6))


def test_crop_takes_the_drawn_window(images):
    draws = [[0.0, 0.0], [0.99, 0.99], [0.5, 0.5], [0.3, 0.7], [0.0, 0.99], [0.99, 0.0]]
    cropped = RandomCrop(2)(images, FixedDraws(draws))
    padded = F.pad(images, (2, 2, 2, 2))
    for image, (y, x), source in zip(cropped, draws, padded, strict=True):
        top, left = int(y * 5), int(x * 5)
        assert torch.equal(image, source[:, top : top + 10, left : left + 12])


def test_flip_mirrors_images_with_draws_below_p(images):
    flipped = HorizontalFlip(0.5)(images, FixedDraws([0.1, 0.9, 0.49, 0.5, 0.0, 0.7]))
    for index, (image, source) in enumerate(zip(flipped, images, strict=True)):
        assert torch.equal(image, source.flip(2) if index in (0, 2, 4) else source)


def test_cutout_blanks_a_square_clipped_at_the_border():
    white = torch.full((3, 2, 10, 12), 255, dtype=torch.uint8)
    cut = Cutout(4)(white, FixedDraws([[0.5, 0.5], [0.0, 0.0], [0.99, 0.99]]))
    expected = white.clone()
    expected[0, :, 3:7, 4:8] = 0
    expected[1, :, :2, :2] = 0
    expected[2, :, 7:, 9:] = 0
    assert torch.equal(cut, expected)


@pytest.mark.parametrize("shape", [(28, 28), (20, 40)])
def test_affine_rotation_and_scale_match_torchvision(shape):
    smooth = F.interpolate(torch.rand(1, 1, 5, 5) * 255, shape, mode="bicubic")
    image = smooth.round().clamp(0, 255).to(torch.uint8)
    ours = RandomAffine(20.0, 0.0, 0.2)(image, FixedDraws([[1.0, 1.0, 0.5, 0.5]]))
    theirs = v2.functional.affine(
        image,
        angle=-20.0,
        translate=[0, 0],
        scale=1.2,
        shear=[0.0],
        interpolation=v2.InterpolationMode.BILINEAR,
    )
    assert (ours.int() - theirs.int()).abs().float().mean() < 2
    assert torch.equal(RandomAffine(0.0, 0.0, 0.0)(image, FixedDraws([[0.9] * 4])), image)


def test_affine_translation_is_a_fraction_of_the_size():
    image = torch.randint(0, 256, (1, 1, 20, 40), dtype=torch.uint8)
    moved = RandomAffine(0.0, 0.1, 0.0)(image, FixedDraws([[0.5, 0.5, 1.0, 1.0]]))
    expected = F.pad(image[..., 2:, 4:], (0, 4, 0, 2))
    assert (moved.int() - expected.int()).abs().max() <= 1
