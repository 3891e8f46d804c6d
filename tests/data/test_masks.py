"""Segmentation masks: augmented with their images, read from folders, and checked."""

from functools import partial

import numpy
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from core.errors import ConfigError
from data.augment import Cutout, HorizontalFlip, RandomAffine, RandomCrop
from data.draws import BatchDraws
from data.images import image_splits
from data.pictures import overlay, palette
from data.splits import UNLABELLED, TensorSplit

COUNT = 12
# an image's pixels encode the class in its mask: 40 for class 0, 80 for class 1, ...
MASKS = torch.randint(0, 4, (COUNT, 4, 5), generator=torch.Generator().manual_seed(0))
MASKS = MASKS.to(torch.uint8).repeat_interleave(4, 1).repeat_interleave(4, 2)
IMAGES = (40 * (MASKS + 1))[:, None].repeat(1, 3, 1, 1)


def augmented(augment, low=0, high=COUNT):
    split = TensorSplit(IMAGES, MASKS)
    splits = image_splits("masks", split, split, None, "abcd", 0.0, 1.0, augment)
    draws = BatchDraws(0, 0, 0, COUNT, low, high)
    images, masks = splits.prepare((IMAGES[low:high], MASKS[low:high]), draws)
    return (255 * images).round().long(), masks.long()


GEOMETRIC = {
    "crop": RandomCrop(3),
    "flip": HorizontalFlip(),
    "affine": RandomAffine(degrees=0, translate=0.2, scale=0.0),
    "torchvision": v2.RandomAffine(degrees=0, translate=(0.2, 0.2)),
    "torchvision flip": v2.RandomHorizontalFlip(),
}


@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometric_augmentation_moves_the_mask_with_the_image(name):
    images, masks = augmented([GEOMETRIC[name]])
    assert not torch.equal(masks, MASKS.long())
    pixels = images[:, 0]
    unmixed = pixels.remainder(40) == 0  # not interpolated between two classes
    labelled = masks != UNLABELLED
    assert (unmixed & labelled).float().mean() > 0.4
    compared = unmixed & labelled & (pixels > 0)
    agree = pixels[compared] == 40 * (masks[compared] + 1)
    # interpolating 40 and 120 gives 80, the value of another class
    assert agree.float().mean() > 0.95 if name == "affine" else agree.all()
    if "flip" not in name:
        assert (masks == UNLABELLED).any()  # filled in at the border
    assert set(masks.unique().tolist()) <= {0, 1, 2, 3, UNLABELLED}
    some_images, some_masks = augmented([GEOMETRIC[name]], 3, 7)  # a slice gets the same draws
    assert torch.equal(some_images, images[3:7])
    assert torch.equal(some_masks, masks[3:7])


@pytest.mark.parametrize("augment", [Cutout(5), v2.ColorJitter(brightness=0.5)])
def test_pixel_augmentation_leaves_the_mask_unchanged(augment):
    images, masks = augmented([augment])
    assert torch.equal(masks, MASKS.long())
    assert not torch.equal(images, IMAGES.long())


class Mirror:
    def __call__(self, images, draws):
        return images.flip(3)


def test_augmentation_without_mask_support_is_rejected():
    with pytest.raises(ConfigError, match=r"^data\.augment: Mirror does not support masks"):
        augmented([Mirror()])


def test_overlay_blends_the_class_colours():
    assert palette()[:3].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    grey = torch.full((1, 1, 1, 2), 0.5)
    masks = torch.tensor([[[1, UNLABELLED]]], dtype=torch.uint8)
    blended = overlay(grey, masks)
    assert blended.shape == (1, 3, 1, 2)
    assert blended[0, :, 0, 0].tolist() == pytest.approx([0.2 + 0.6 * 128 / 255, 0.2, 0.2])


@pytest.fixture
def folder(tmp_path, make_splits):
    """Return a function that builds the splits of a folder of ``IMAGES`` and ``MASKS``."""
    for name, chosen in (("train", range(8)), ("test", range(8, COUNT))):
        for kind in ("images", "masks"):
            (tmp_path / name / kind).mkdir(parents=True)
        for i in chosen:
            image = Image.fromarray(IMAGES[i].permute(1, 2, 0).numpy())
            image.save(tmp_path / name / "images" / f"{i:02}.png")
            Image.fromarray(MASKS[i].numpy()).save(tmp_path / name / "masks" / f"{i:02}.png")

    return partial(make_splits, "mask_folder", root=str(tmp_path), val_fraction=0.25)


def test_streamed_images_and_masks_equal_resident_ones(folder):
    resident = folder()
    assert [len(getattr(resident, name)) for name in ("train", "val", "test")] == [6, 2, 4]
    assert resident.spec.class_names == ("0", "1", "2", "3")
    assert torch.equal(resident.test.tensors[0], IMAGES[8:])
    assert torch.equal(resident.test.tensors[1], MASKS[8:])
    streamed = folder(resident=False, class_names=["a", "b", "c", "d"])
    for split in ("train", "val", "test"):
        one, other = getattr(resident, split), getattr(streamed, split)
        for i in range(len(one)):
            assert all(map(torch.equal, one[i], other[i]))
    for i in range(6):
        image, mask = streamed.train.sample(i, torch.Generator().manual_seed(i))
        pixels = image[0].long()
        unmixed = pixels.remainder(40) == 0
        agree = pixels[unmixed] == 40 * (mask[unmixed].long() + 1)
        assert agree.float().mean() > 0.95  # the crop's border falls between pixels
    with pytest.raises(ConfigError, match="class_names should name the classes where masks are st"):
        folder(resident=False)


def test_mask_values_map_pixels_to_classes(folder):
    splits = folder(mask_values=[1, 3], class_names=["one", "three"])
    expected = torch.full_like(MASKS[8:], UNLABELLED)
    expected[MASKS[8:] == 1], expected[MASKS[8:] == 3] = 0, 1
    assert torch.equal(splits.test.tensors[1], expected)
    with pytest.raises(ConfigError, match=r"mask_values=\[1\] should be distinct numbers"):
        folder(mask_values=[1], class_names=["one", "three"])


def overwrite_mask(folder, name, *shape, value=0):
    array = numpy.full(shape, value, "uint8")
    Image.fromarray(array).save(folder / "train" / "masks" / name)


BROKEN = {
    r"00.png is 8x6, its image 20x16$": lambda f: overwrite_mask(f, "00.png", 6, 8),
    r"00.png has RGB pixels: it": lambda f: overwrite_mask(f, "00.png", 16, 20, 3),
    r"00.png has a class 9; data.class": lambda f: overwrite_mask(f, "00.png", 16, 20, value=9),
    r"03.png has no mask .*masks/03.png": lambda f: (f / "train/masks/03.png").unlink(),
    r"cannot read the image .*02.png": lambda f: (f / "train/masks/02.png").write_bytes(b"x"),
    r"no folder .*train/images": lambda f: (f / "train").rename(f / "training"),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_folder_raises_one_line_error(folder, tmp_path, message):
    BROKEN[message](tmp_path)
    with pytest.raises(ConfigError, match=message) as raised:
        folder(class_names=["a", "b", "c", "d"])
    assert "\n" not in str(raised.value)


def test_masks_of_0_and_255_need_mask_values(folder, tmp_path):
    for file in tmp_path.glob("*/masks/*.png"):
        Image.fromarray(numpy.array([[0, 255] * 10] * 16, numpy.uint8)).save(file)
    with pytest.raises(ConfigError, match=r"set data\.mask_values=\[0,255\]$"):
        folder()
    splits = folder(mask_values=[0, 255])
    assert splits.spec.class_names == ("0", "1")
