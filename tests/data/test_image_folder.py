"""Folders of images: classes, splits, decoding, caching and error messages."""

import os
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from core.errors import ConfigError
from data import stored_images
from data.decode import Decoder, size_of
from data.splits import ImageSpec, TensorSplit
from deploy.images import read_image


def write_image(file, colour, size=(12, 8), mode="RGB"):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(file)


@pytest.fixture
def root(tmp_path):
    """A folder of ten training images per class, red or blue; green is the image's number."""
    for name, red, blue in (("blue", 0, 255), ("red", 255, 0)):
        for number in range(10):
            write_image(tmp_path / "train" / name / f"{number}.png", (red, number, blue))
        write_image(tmp_path / "test" / name / "0.png", (red, 100, blue))
    return tmp_path


@pytest.fixture
def splits(make_splits):
    """Return a function that builds the splits of a folder: ``splits(root, channels=1)``."""
    return lambda root, **settings: make_splits("image_folder", root=str(root), **settings)


def test_every_image_is_in_one_split_with_its_label(root, splits):
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


def test_val_folder_is_used_and_test_is_optional(root, splits):
    (root / "test").rename(root / "val")
    built = splits(root)
    assert (len(built.train), len(built.val), built.test) == (20, 2, None)


def test_decoded_images_are_cached_by_files_and_version(root, splits, monkeypatch):
    calls, decode_all = [], stored_images.decode_all
    monkeypatch.setattr(
        stored_images, "decode_all", lambda *args: calls.append(1) or decode_all(*args)
    )
    first, second = splits(root), splits(root)
    assert len(calls) == 3  # training, validation, test
    assert torch.equal(first.train.tensors[0], second.train.tensors[0])
    write_image(root / "train" / "red" / "3.png", (255, 77, 0))
    changed = splits(root)
    all_images = torch.cat([changed.train.tensors[0], changed.val.tensors[0]])
    assert (all_images[:, 1, 0, 0] == 77).sum() == 1
    monkeypatch.setattr(stored_images, "VERSION", stored_images.VERSION + 1)
    splits(root)
    assert len(calls) == 9


def test_wide_image_is_centre_cropped(tmp_path, splits):
    pixels = numpy.zeros((10, 30, 3), numpy.uint8)
    pixels[:, 10:20] = 200
    (tmp_path / "train" / "a").mkdir(parents=True)
    for number in range(2):
        Image.fromarray(pixels).save(tmp_path / "train" / "a" / f"{number}.png")
    built = splits(tmp_path, image_size=5, val_fraction=0.5)
    assert (built.train.tensors[0][..., 1:-1] == 200).all()  # edge pixels mix with cropped ones
    assert (built.train.tensors[0] > 128).all()


RNG = numpy.random.default_rng(0)
COLOURS = Image.fromarray(RNG.integers(0, 256, (8, 12, 4), numpy.uint8))  # RGBA
LUMA = [0.299, 0.587, 0.114]
UINT16 = Image.fromarray(RNG.integers(0, 65536, (8, 12), numpy.uint16))
IS_OPAQUE = numpy.asarray(COLOURS)[..., 3] > 127
WITH_HOLES_ON_WHITE = numpy.where(IS_OPAQUE, 200, 255)
WITH_HOLES = Image.fromarray(numpy.where(IS_OPAQUE, 200, 0).astype(numpy.uint8))  # 0 is transparent


def grey_on_white(colours):
    """Composite RGBA pixels over white, as grey levels."""
    colour, alpha = numpy.split(numpy.asarray(colours, numpy.float64), [3], 2)
    return (colour * alpha / 255 + 255 - alpha) @ LUMA


ON_WHITE = grey_on_white(COLOURS)
WITHOUT_ALPHA = numpy.asarray(COLOURS.convert("RGB").convert("L"))
# file name, image, options of PIL's writer, grey levels that a viewer shows (None: unknown)
FORMATS = [
    ("rgba.png", COLOURS, {}, ON_WHITE),
    ("la.png", COLOURS.convert("LA"), {}, grey_on_white(COLOURS.convert("LA").convert("RGBA"))),
    ("rgba.webp", COLOURS, {"lossless": True, "exact": True}, ON_WHITE),
    ("rgba.tif", COLOURS, {}, ON_WHITE),
    ("l_key.png", WITH_HOLES, {"transparency": 0}, WITH_HOLES_ON_WHITE),
    ("p_key.png", WITH_HOLES.convert("P"), {"transparency": 0}, WITH_HOLES_ON_WHITE),
    ("p_alpha.png", WITH_HOLES.convert("P"), {"transparency": bytes([0])}, WITH_HOLES_ON_WHITE),
    ("p.gif", WITH_HOLES.convert("P"), {"transparency": 0}, WITH_HOLES_ON_WHITE),
    ("1.png", Image.fromarray(IS_OPAQUE), {}, 255 * IS_OPAQUE),
    ("1.tif", Image.fromarray(IS_OPAQUE), {}, 255 * IS_OPAQUE),
    ("cmyk.tif", COLOURS.convert("RGB").convert("CMYK"), {}, WITHOUT_ALPHA),
    ("cmyk.jpg", COLOURS.convert("RGB").convert("CMYK"), {"quality": 100}, None),
    ("rgb.jpg", COLOURS.convert("RGB"), {"quality": 90}, None),
    ("rgb.jfif", COLOURS.convert("RGB"), {"quality": 90, "format": "JPEG"}, None),
    ("l.jpg", COLOURS.convert("L"), {"quality": 90}, None),
    ("rgb.webp", COLOURS.convert("RGB"), {"quality": 90}, None),
    ("rgb.bmp", COLOURS.convert("RGB"), {}, WITHOUT_ALPHA),
    ("16.png", UINT16, {}, numpy.asarray(UINT16) / 257),
    ("16.tif", UINT16, {}, numpy.asarray(UINT16) / 257),
    ("16.pgm", UINT16, {}, numpy.asarray(UINT16) / 257),
]


def assert_decoded_identically(folder, splits, name, image, options, size):
    """Check that training, evaluation and prediction decode alike; return pixels by channels."""
    for split in ("train", "val"):
        for label in ("a", "b"):
            file = folder / split / label / name
            file.parent.mkdir(parents=True)
            image.save(file, **options)
    by_channels = {}
    for channels in (1, 3):
        settings = {"image_size": list(size), "channels": channels, "min_crop_area": 1.0}
        resident = splits(folder, resident=True, **settings)
        streamed = splits(folder, resident=False, **settings)
        pixels = resident.train.tensors[0][0]
        assert torch.equal(pixels, resident.val.tensors[0][1])
        assert torch.equal(pixels, streamed.train[1][0])
        assert torch.equal(pixels, streamed.val[0][0])
        (predicted,), _ = read_image(file, resident.spec)
        assert torch.equal(pixels, predicted)
        by_channels[channels] = pixels
    return by_channels


@pytest.mark.parametrize(("name", "image", "options", "expected"), FORMATS)
def test_training_evaluation_and_prediction_decode_identically(
    tmp_path, splits, name, image, options, expected
):
    """All get the same bytes, in every mode and format, within 2 levels of an image viewer."""
    assert_decoded_identically(tmp_path / "small", splits, name, image, options, (5, 5))
    if Path(name).suffix in (".jpg", ".jfif", ".png", ".webp", ".tif"):
        # stored rotated, as by a camera held upright; the EXIF orientation rotates it back
        exif = Image.Exif()
        exif[0x0112] = 6
        image, options = image.transpose(Image.Transpose.ROTATE_90), {**options, "exif": exif}
    pixels = assert_decoded_identically(tmp_path / "full", splits, name, image, options, (8, 12))
    if expected is not None:
        assert abs(pixels[1][0].numpy() - expected).max() <= 2
        assert abs(pixels[3].permute(1, 2, 0).numpy() @ LUMA - expected).max() <= 2


def test_large_jpeg_is_decoded_identically(tmp_path, splits):
    """A JPEG this large is decoded at a fraction of its size."""
    smooth = Image.fromarray(RNG.integers(0, 256, (12, 16, 3), numpy.uint8)).resize((640, 480))
    assert_decoded_identically(tmp_path, splits, "0.jpg", smooth, {}, (32, 32))


def test_set_above_max_resident_bytes_is_streamed(root, splits):
    assert isinstance(splits(root).train, TensorSplit)
    assert not isinstance(splits(root, max_resident_bytes=1000).train, TensorSplit)
    assert isinstance(splits(root, max_resident_bytes=1000, resident=True).train, TensorSplit)
    assert not isinstance(splits(root, resident=False).train, TensorSplit)


def test_other_files_are_ignored_and_reported(root, splits):
    (root / "train" / "red" / "notes.txt").write_text("not an image")
    (root / "train" / "red" / ".hidden.png").write_text("not an image")
    (root / "train" / ".git").mkdir()
    write_image(root / "train" / "loose.png", (0, 0, 0))
    (root / "valid").mkdir()
    (root / ".images_cache").mkdir()
    built = splits(root)
    assert len(built.train) == 18
    assert built.notes == [
        "data.root: ignored files, not images or not in a class: 1 .png, 1 .txt",
        "data.root: ignored folders: valid (train, val, test are used)",
    ]


def test_single_class_is_rejected(root, train):
    """This happens when the class folders lie one level too deep, in root/train/images/."""
    shutil.rmtree(root / "train" / "red")
    shutil.rmtree(root / "test")
    with pytest.raises(ConfigError, match="has only one class, blue"):
        train("data=image_folder", f"data.root={root}", "data.batch_size=2")


def test_symlink_cycles_are_skipped_and_broken_links_rejected(root, splits):
    """Other links are followed: 20 images and the one of test/red."""
    (root / "train" / "loop").symlink_to(root / "train")
    (root / "train" / "red" / "self").symlink_to(".")
    (root / "train" / "red" / "all").symlink_to(root)
    (root / "train" / "red" / "more").symlink_to(root / "test" / "red")
    (root / "train" / "red" / "ring").symlink_to("ring")
    assert splits(root).spec.class_names == ("blue", "red")
    assert len(splits(root).train) + len(splits(root).val) == 21
    (root / "train" / "red" / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(ConfigError, match=r"cannot read the image .*red/gone\.png: No such file"):
        splits(root)


def test_detected_image_size_respects_exif_orientation(tmp_path, splits):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "train" / "a").mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (12, 8)).save(tmp_path / "train" / "a" / f"{number}.jpg", exif=exif)
    assert splits(tmp_path, val_fraction=0.5).spec.image_size == (12, 8)


def test_file_name_that_is_not_utf8_is_accepted(root, splits):
    image = (root / "train" / "red" / "3.png").read_bytes()
    (root / "train" / "red" / os.fsdecode(b"caf\xe9.png")).write_bytes(image)
    assert len(splits(root, resident=True).train) == 19
    assert splits(root, resident=False).train.identity()


BROKEN = {
    r"train/green has no images": lambda root: (root / "train/green").mkdir(),
    r"test/green is a class that train/ does not have": lambda root: (root / "test/green").mkdir(),
    r"train has no class folders": lambda root: empty(root / "train"),
    r"data\.root: there is no folder .*/train": lambda root: shutil.rmtree(root / "train"),
}


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize("message", BROKEN)
def test_broken_folder_structure_is_rejected(root, splits, message):
    BROKEN[message](root)
    with pytest.raises(ConfigError, match=message):
        splits(root)


@pytest.mark.parametrize("content", ["", "text", "half"])
@pytest.mark.parametrize("resident", [True, False])
def test_corrupt_image_raises_one_line_error(root, splits, content, resident):
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


@pytest.mark.parametrize(
    ("mode", "size", "settings", "message"),
    [
        ("RGB", (100, 100), {"max_pixels": 5000, "image_size": 8},
         r"100x100 pixels, .*5,000 \(data\.max_pixels\)"),
        ("RGB", (13, 8), {}, r"odd\.tif is 13x8 .*: set data\.image_size"),
        ("I", (12, 8), {}, r"odd\.tif has 32-bit pixels: save it with 8 or 16"),
        ("F", (12, 8), {}, r"odd\.tif has 32-bit pixels: save it with 8 or 16"),
    ],
)  # fmt: skip
def test_unsupported_image_is_rejected(root, splits, mode, size, settings, message):
    write_image(root / "train/red/odd.tif", 0, size, mode)
    with pytest.raises(ConfigError, match=message):
        splits(root, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 2}, "data.channels=2 should be 1"),
        ({"val_fraction": 1}, "data.val_fraction=1 should be less than 1"),
        ({"val_fraction": 0.99}, "^data.val_fraction=0.99: none of 20 samples would be left"),
        ({"resident": "sometimes"}, "data.resident=sometimes should be"),
        ({"min_crop_area": 0}, "data.min_crop_area=0 should be greater than 0"),
        ({"image_size": [8, 8, 3]}, "data.image_size="),
        ({"image_size": 0}, "data.image_size=0 should be"),
        ({"mean": [0.5, 0.5]}, "data.mean=.* should be one number"),
        (
            {"image_sizes": 8},
            r"image_sizes: image_folder has no such setting; did you mean data.image_size\?",
        ),
        ({"max_pixels": "many"}, "data.max_pixels=many should be a number"),
    ],
)
def test_wrong_setting_is_rejected(root, splits, settings, message):
    with pytest.raises(ConfigError, match=message):
        splits(root, **settings)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(32, 16), (4, 2)])
def test_exif_orientation_is_applied(tmp_path, orientation, size):
    """It holds at full size and for a JPEG that is decoded at a fraction of its size."""
    upright = Image.new("RGB", (32, 16), "black")
    upright.paste("white", (0, 0, 16, 8))
    # PIL's number of the transpose that each orientation undoes
    transposes = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(transposes[orientation]) if orientation > 1 else upright
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


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_postscript_file_starts_no_external_program(tmp_path, name):
    """PIL would run Ghostscript for a file with this header, whatever its extension."""
    (tmp_path / name).write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    spec = ImageSpec("photos", 1, (8, 8), ("a",), (0.5,), (0.5,))
    with pytest.raises(ConfigError, match=f"{name}: unknown image format"):
        read_image(tmp_path / name, spec)
    with pytest.raises(ConfigError, match=f"{name}: unknown image format"):
        size_of(str(tmp_path / name))


def test_pixel_limit_applies_to_prediction(tmp_path):
    Image.new("1", (9400, 9400)).save(tmp_path / "a.png")  # 88 megapixels in 11 kB
    spec = ImageSpec("photos", 1, (8, 8), ("a",), (0.5,), (0.5,))
    with pytest.raises(ConfigError, match="more than the allowed 50,000,000"):
        read_image(tmp_path / "a.png", spec)
