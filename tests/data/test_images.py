"""Image data sets: normalization, the checks of images and augmentations, the background."""

import math

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from core.errors import ConfigError
from data.augment import Cutout, HorizontalFlip
from data.images import image_splits
from data.splits import TensorSplit

IMAGES = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
LABELS = torch.arange(6)
MASKS = torch.zeros(6, 8, 8, dtype=torch.long)


def splits(*tensors, mean=0.5, std=0.5, augment=()):
    split = TensorSplit(*tensors)
    return image_splits("test", split, split, None, "ab", mean, std, augment)


@pytest.mark.parametrize("mean", [0.25, [0.25], [0.25, 0.25, 0.25]])
def test_single_mean_applies_to_all_channels(mean):
    assert splits(IMAGES, LABELS, mean=mean).spec.mean == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("mean", [[0.5, 0.5], "0.5", None, [True], ["a"], []])
def test_malformed_mean_is_rejected(mean):
    with pytest.raises(ConfigError, match=r"data\.mean=.* should be one number, or a list of one"):
        splits(IMAGES, LABELS, mean=mean)


@pytest.mark.parametrize(
    "settings", [{"mean": 125.3}, {"std": 63.0}, {"std": 0.0}, {"mean": -0.1}, {"std": math.nan}]
)
def test_mean_or_std_out_of_range_is_rejected(settings):
    """Statistics of pixels from 0 to 255 would ruin training without an error message."""
    with pytest.raises(ConfigError, match="refer to pixel values from 0 to 1, not 255"):
        splits(IMAGES, LABELS, **settings)


@pytest.mark.parametrize(
    ("images", "description"),
    [
        (IMAGES / 255, r"float32 of shape \(3, 8, 8\)"),  # would be divided by 255 again
        (IMAGES[:, 0], r"uint8 of shape \(8, 8\)"),
    ],
)
def test_images_that_are_not_uint8_chw_are_rejected(images, description):
    with pytest.raises(
        ConfigError, match=f"as before ToTensor or normalization; got {description}"
    ):
        splits(images, LABELS)


@pytest.mark.parametrize("augment", ["flip", ["flip"], {"p": 0.5}, 3, HorizontalFlip()])
def test_augment_that_is_not_a_list_is_rejected(augment):
    with pytest.raises(ConfigError, match=r"data\.augment=.* should be a list of _target_s"):
        splits(IMAGES, LABELS, augment=augment)
    assert splits(IMAGES, LABELS, augment=None).prepare.augment == ()


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (v2.Resize(4), r"Resize turns uint8 images .* into uint8 of shape \(3, 4, 4\)"),
        (
            v2.ToDtype(torch.float32),
            r"ToDtype turns uint8 images .* into float32 of shape \(3, 8, 8\)",
        ),
        (v2.MixUp(num_classes=2), r"MixUp fails on uint8 images of shape \(3, 8, 8\): ValueError"),
        (nn.Flatten(), r"Flatten fails on uint8 images .*: TypeError"),
        (lambda images, draws: None, "function turns uint8 images .* into NoneType"),
    ],
)
def test_incompatible_augmentation_is_rejected(augment, message):
    with pytest.raises(ConfigError, match=rf"^data\.augment: {message}"):
        splits(IMAGES, LABELS, augment=[augment])


@pytest.mark.parametrize(("num_light", "background"), [(0, 0.0), (2, None), (32, None), (64, 1.0)])
def test_background_is_set_unless_an_image_has_the_opposite_one(num_light, background):
    """``predict.py`` inverts images on the opposite background, unless training had such images."""
    images = torch.zeros(64, 1, 8, 8, dtype=torch.uint8)
    images[:num_light] = 255
    assert splits(images, LABELS[:1].expand(64)).spec.background == background


def test_augmentation_that_would_not_move_targets_is_rejected():
    with pytest.raises(ConfigError, match=r"move the pixels .* targets of shape \(8, 8\)"):
        splits(IMAGES, MASKS, augment=[Cutout(2)])
    assert splits(IMAGES, MASKS).train is not None
