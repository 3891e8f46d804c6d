"""Folders of images: found, split, decoded, cached; and what is wrong with them, in one line."""

import numpy
import pytest
import torch
from PIL import Image

from core.errors import ConfigError
from data import image_folder
from data.build import build_splits
from data.decode import Decoder
from data.splits import ImageSpec, TensorSplit
from deploy.images import read_image


def write_image(file, colour, size=(12, 8), mode="RGB"):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(file)


@pytest.fixture
def root(tmp_path):
    """Two classes of ten: red and blue, the number of the image in its green."""
    for name, red, blue in (("blue", 0, 255), ("red", 255, 0)):
        for number in range(10):
            write_image(tmp_path / "train" / name / f"{number}.png", (red, number, blue))
        write_image(tmp_path / "test" / name / "0.png", (red, 100, blue))
    return tmp_path


@pytest.fixture(scope="module")
def splits(composed):
    """``splits(root, channels=1)``: the splits of a folder, other settings as in the YAML."""
    config = composed("data=image_folder", "data.root=unset")["data"]

    def build(root, **settings):
        return build_splits({**config, "root": str(root), **settings})

    return build


def test_every_image_once(root, splits):
    built = splits(root)
    assert [len(split) for split in (built.train, built.val, built.test)] == [18, 2, 2]
    assert built.spec.class_names == ("blue", "red")
    assert built.spec.image_size == (8, 12)
    greens = torch.cat([built.train.tensors[0], built.val.tensors[0]])[:, 1, 0, 0]
    assert greens.sort().values.tolist() == sorted([*range(10)] * 2)
    for split in (built.train, built.val, built.test):
        images, labels = split.tensors
        assert torch.equal(images[:, 0, 0, 0] == 255, labels == 1)
    assert built.val.tensors[1].tolist() == [0, 1]


def test_own_validation_and_no_test(root, splits):
    (root / "test").rename(root / "val")
    built = splits(root)
    assert len(built.train) == 20
    assert len(built.val) == 2
    assert built.test is None


def test_decoded_once(root, splits, monkeypatch):
    first = splits(root)
    monkeypatch.setattr(image_folder, "decode_all", lambda *_: pytest.fail("decoded again"))
    again = splits(root)
    assert torch.equal(first.train.tensors[0], again.train.tensors[0])
    monkeypatch.undo()
    write_image(root / "train" / "red" / "3.png", (255, 77, 0))
    changed = splits(root)
    everything = torch.cat([changed.train.tensors[0], changed.val.tensors[0]])
    assert (everything[:, 1, 0, 0] == 77).sum() == 1


def test_damaged_cache_is_made_anew(root, splits):
    first = splits(root)
    (cache,) = root.glob(".images*")
    cache.write_bytes(cache.read_bytes()[:100])
    assert torch.equal(splits(root).train.tensors[0], first.train.tensors[0])


def test_read_only_folder(root, splits, monkeypatch):
    def refuse(*_):
        raise RuntimeError("File cannot be opened")

    monkeypatch.setattr(torch, "save", refuse)
    assert len(splits(root).train) == 18
    assert not list(root.glob(".images*"))


def test_grayscale_and_size(root, splits):
    built = splits(root, channels=1, image_size=[4, 6])
    assert built.train.tensors[0].shape == (18, 1, 4, 6)
    assert built.spec.in_channels == 1
    assert built.spec.mean == (0.5,)


def test_centre_crop(tmp_path, splits):
    pixels = numpy.zeros((10, 30, 3), numpy.uint8)
    pixels[:, 10:20] = 200
    (tmp_path / "train" / "a").mkdir(parents=True)
    for number in range(2):
        Image.fromarray(pixels).save(tmp_path / "train" / "a" / f"{number}.png")
    built = splits(tmp_path, image_size=5, val_fraction=0.5)
    assert (built.train.tensors[0][..., 1:-1] == 200).all()  # the border mixes with what was cut
    assert (built.train.tensors[0] > 128).all()


@pytest.mark.parametrize("resident", [True, False])
def test_other_modes_of_files(tmp_path, splits, resident):
    for number, mode in enumerate(("RGB", "L", "RGBA", "P", "1", "CMYK")):
        suffix = "jpg" if mode in ("CMYK", "L") else "png"
        write_image(tmp_path / "train" / "a" / f"{number}.{suffix}", 0, mode=mode)
    built = splits(tmp_path, resident=resident, image_size=8)
    for index in range(len(built.train)):
        pixels = built.train[index][0] if not resident else built.train.tensors[0][index]
        assert pixels.shape == (3, 8, 8)


def test_large_sets_are_streamed(root, splits):
    assert isinstance(splits(root).train, TensorSplit)
    assert not isinstance(splits(root, max_resident_bytes=1000).train, TensorSplit)
    assert isinstance(splits(root, max_resident_bytes=1000, resident=True).train, TensorSplit)
    assert not isinstance(splits(root, resident=False).train, TensorSplit)


def test_other_files_are_passed_over(root, splits):
    (root / "train" / "red" / "notes.txt").write_text("not an image")
    (root / "train" / "red" / ".hidden.png").write_text("not an image")
    (root / "train" / ".git").mkdir()
    assert len(splits(root).train) == 18


def test_missing_and_empty_folders(root, splits):
    with pytest.raises(ConfigError, match=r"data\.root: cannot read the folder .*nowhere/train"):
        splits(root / "nowhere")
    (root / "train" / "green").mkdir()
    with pytest.raises(ConfigError, match=r"train/green has no images"):
        splits(root)
    (root / "empty" / "train").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"train has no folders, one for each class"):
        splits(root / "empty")


def test_class_that_training_has_not(root, splits):
    write_image(root / "test" / "green" / "0.png", 0)
    with pytest.raises(ConfigError, match=r"test/green is a class that train/ has not"):
        splits(root)


@pytest.mark.parametrize("content", ["", "text", "half"])
@pytest.mark.parametrize("resident", [True, False])
def test_corrupt_image(root, splits, content, resident):
    file = root / "train" / "red" / "5.jpg"
    write_image(file, 0, size=(12, 8))
    half = file.read_bytes()[:-30]
    file.write_bytes({"": b"", "text": b"no image", "half": half}[content])

    def read_all():
        built = splits(root, resident=resident, val_fraction=0.01)
        return [built.train[index] for index in range(len(built.train))]

    with pytest.raises(ConfigError, match=r"cannot read the image .*red/5\.jpg") as info:
        read_all()
    assert "\n" not in str(info.value)


def test_too_many_pixels(root, splits):
    write_image(root / "train" / "red" / "huge.png", 0, size=(100, 100))
    with pytest.raises(ConfigError, match=r"huge\.png has 100x100 .*data\.max_pixels=5000"):
        splits(root, max_pixels=5000, image_size=8)


def test_decompression_bomb(root, splits, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9000)  # PIL warns of the file below
    write_image(root / "train" / "red" / "huge.png", 0, size=(100, 100))
    with pytest.raises(ConfigError, match=r"cannot read the image .*huge\.png.*bomb"):
        splits(root, image_size=8)


def test_sizes_that_differ(root, splits):
    write_image(root / "train" / "red" / "wide.png", 0, size=(13, 8))
    with pytest.raises(ConfigError, match=r"wide\.png is 13x8 .*: set data\.image_size"):
        splits(root)


def test_more_than_8_bits(root, splits):
    Image.fromarray(numpy.full((8, 12), 40000, numpy.uint16)).save(root / "train/red/deep.png")
    with pytest.raises(ConfigError, match=r"deep\.png has more than 8 bits"):
        splits(root)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 2}, "data.channels=2 should be 1"),
        ({"val_fraction": 1}, "data.val_fraction=1 should be above 0"),
        ({"resident": "sometimes"}, "data.resident=sometimes should be"),
        ({"min_crop_area": 0}, "data.min_crop_area=0 should be above 0"),
        ({"image_size": [8, 8, 3]}, "data.image_size="),
        ({"image_size": 0}, "data.image_size=0 should be"),
        ({"mean": [0.5, 0.5]}, "data.mean=.* should have one value"),
        ({"std": [0]}, "data.std=.* should be above 0"),
    ],
)
def test_wrong_settings(root, splits, settings, message):
    with pytest.raises(ConfigError, match=message):
        splits(root, **settings)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(32, 16), (4, 2)])
def test_photographs_are_turned_upright(tmp_path, orientation, size):
    """At full size and in a JPEG that is decoded at a fraction of it."""
    upright = Image.new("RGB", (32, 16), "black")
    upright.paste("white", (0, 0, 16, 8))
    # how a camera stores what the orientation turns upright
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL's numbers of the inverse turns
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.jpg", exif=exif, quality=100)
    width, height = size
    decoder = Decoder((height, width), 1, same_size=False, max_pixels=1000, min_crop_area=1.0)
    image = decoder(str(tmp_path / "photo.jpg"))[0].float() / 255
    expected = torch.zeros(height, width)
    expected[: height // 2, : width // 2] = 1
    assert (image - expected).abs().mean() < 0.15
    spec = ImageSpec("photos", 1, (height, width), ("a",), (0.5,), (0.5,))
    (image,), _ = read_image(tmp_path / "photo.jpg", spec)
    assert (image[0].float() / 255 - expected).abs().mean() < 0.15
