"""Folders of images: found, split, decoded, cached; and what is wrong with them, in one line."""

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
    """Two classes of ten: red and blue, the number of the image in its green."""
    for name, red, blue in (("blue", 0, 255), ("red", 255, 0)):
        for number in range(10):
            write_image(tmp_path / "train" / name / f"{number}.png", (red, number, blue))
        write_image(tmp_path / "test" / name / "0.png", (red, 100, blue))
    return tmp_path


@pytest.fixture
def splits(splits_of):
    """``splits(root, channels=1)``: the splits of a folder, other settings as in the YAML."""
    return lambda root, **settings: splits_of("image_folder", root=str(root), **settings)


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
    assert (len(built.train), len(built.val), built.test) == (20, 2, None)


def test_decoded_once_for_the_same_files_and_decoder(root, splits, monkeypatch):
    decoded, decode = [], stored_images.decode_all
    monkeypatch.setattr(
        stored_images, "decode_all", lambda *given: decoded.append(1) or decode(*given)
    )
    first, again = splits(root), splits(root)
    assert len(decoded) == 3  # training, validation, test
    assert torch.equal(first.train.tensors[0], again.train.tensors[0])
    write_image(root / "train" / "red" / "3.png", (255, 77, 0))
    changed = splits(root)
    everything = torch.cat([changed.train.tensors[0], changed.val.tensors[0]])
    assert (everything[:, 1, 0, 0] == 77).sum() == 1
    monkeypatch.setattr(stored_images, "VERSION", stored_images.VERSION + 1)
    splits(root)
    assert len(decoded) == 9


def test_centre_crop(tmp_path, splits):
    pixels = numpy.zeros((10, 30, 3), numpy.uint8)
    pixels[:, 10:20] = 200
    (tmp_path / "train" / "a").mkdir(parents=True)
    for number in range(2):
        Image.fromarray(pixels).save(tmp_path / "train" / "a" / f"{number}.png")
    built = splits(tmp_path, image_size=5, val_fraction=0.5)
    assert (built.train.tensors[0][..., 1:-1] == 200).all()  # the border mixes with what was cut
    assert (built.train.tensors[0] > 128).all()


RANDOM = numpy.random.default_rng(0)
COLOURS = Image.fromarray(RANDOM.integers(0, 256, (8, 12, 4), numpy.uint8))  # RGBA
LUMA = [0.299, 0.587, 0.114]
DEEP = Image.fromarray(RANDOM.integers(0, 65536, (8, 12), numpy.uint16))
BRIGHT = numpy.asarray(COLOURS)[..., 3] > 127
ON_LIGHT = numpy.where(BRIGHT, 200, 255)
HOLED = Image.fromarray(numpy.where(BRIGHT, 200, 0).astype(numpy.uint8))  # 0 is transparent


def grey_on_white(colours):
    """What RGBA pixels look like on white paper, in grey."""
    colour, alpha = numpy.split(numpy.asarray(colours, numpy.float64), [3], 2)
    return (colour * alpha / 255 + 255 - alpha) @ LUMA


ON_WHITE = grey_on_white(COLOURS)
OPAQUE = numpy.asarray(COLOURS.convert("RGB").convert("L"))
# name, image, settings of PIL's writer, and the grey levels that a viewer shows
FORMATS = [
    ("rgba.png", COLOURS, {}, ON_WHITE),
    ("la.png", COLOURS.convert("LA"), {}, grey_on_white(COLOURS.convert("LA").convert("RGBA"))),
    ("rgba.webp", COLOURS, {"lossless": True, "exact": True}, ON_WHITE),
    ("rgba.tif", COLOURS, {}, ON_WHITE),
    ("l_key.png", HOLED, {"transparency": 0}, ON_LIGHT),
    ("p_key.png", HOLED.convert("P"), {"transparency": 0}, ON_LIGHT),
    ("p_alpha.png", HOLED.convert("P"), {"transparency": bytes([0])}, ON_LIGHT),
    ("p.gif", HOLED.convert("P"), {"transparency": 0}, ON_LIGHT),
    ("1.png", Image.fromarray(BRIGHT), {}, 255 * BRIGHT),
    ("1.tif", Image.fromarray(BRIGHT), {}, 255 * BRIGHT),
    ("cmyk.tif", COLOURS.convert("RGB").convert("CMYK"), {}, OPAQUE),
    ("cmyk.jpg", COLOURS.convert("RGB").convert("CMYK"), {"quality": 100}, None),
    ("rgb.jpg", COLOURS.convert("RGB"), {"quality": 90}, None),
    ("rgb.jfif", COLOURS.convert("RGB"), {"quality": 90, "format": "JPEG"}, None),
    ("l.jpg", COLOURS.convert("L"), {"quality": 90}, None),
    ("rgb.webp", COLOURS.convert("RGB"), {"quality": 90}, None),
    ("rgb.bmp", COLOURS.convert("RGB"), {}, OPAQUE),
    ("16.png", DEEP, {}, numpy.asarray(DEEP) / 257),
    ("16.tif", DEEP, {}, numpy.asarray(DEEP) / 257),
    ("16.pgm", DEEP, {}, numpy.asarray(DEEP) / 257),
]


def assert_all_see_the_same(folder, splits, name, image, options, size):
    """The image, ``(C, H, W)`` by channels, as training, evaluation and prediction see it."""
    for split in ("train", "val"):
        for label in ("a", "b"):
            file = folder / split / label / name
            file.parent.mkdir(parents=True)
            image.save(file, **options)
    found = {}
    for channels in (1, 3):
        settings = {"image_size": list(size), "channels": channels, "min_crop_area": 1.0}
        resident = splits(folder, resident=True, **settings)
        streamed = splits(folder, resident=False, **settings)
        seen = resident.train.tensors[0][0]
        assert torch.equal(seen, resident.val.tensors[0][1])
        assert torch.equal(seen, streamed.train[1][0])
        assert torch.equal(seen, streamed.val[0][0])
        (predicted,), _ = read_image(file, resident.spec)
        assert torch.equal(seen, predicted)
        found[channels] = seen
    return found


@pytest.mark.parametrize(("name", "image", "options", "expected"), FORMATS)
def test_training_evaluation_and_prediction_see_the_same(
    tmp_path, splits, name, image, options, expected
):
    """Byte by byte, in every mode and format; and what they see is what a viewer shows."""
    assert_all_see_the_same(tmp_path / "small", splits, name, image, options, (5, 5))
    if Path(name).suffix in (".jpg", ".jfif", ".png", ".webp", ".tif"):
        # as a camera held upright stores it; a viewer turns it back
        exif = Image.Exif()
        exif[0x0112] = 6
        image, options = image.transpose(Image.Transpose.ROTATE_90), {**options, "exif": exif}
    seen = assert_all_see_the_same(tmp_path / "full", splits, name, image, options, (8, 12))
    if expected is not None:
        assert abs(seen[1][0].numpy() - expected).max() <= 2
        assert abs(seen[3].permute(1, 2, 0).numpy() @ LUMA - expected).max() <= 2


def test_large_photographs_too(tmp_path, splits):
    """Those that are decoded at a fraction of their size, among them."""
    smooth = Image.fromarray(RANDOM.integers(0, 256, (12, 16, 3), numpy.uint8)).resize((640, 480))
    assert_all_see_the_same(tmp_path, splits, "0.jpg", smooth, {}, (32, 32))


def test_large_sets_are_streamed(root, splits):
    assert isinstance(splits(root).train, TensorSplit)
    assert not isinstance(splits(root, max_resident_bytes=1000).train, TensorSplit)
    assert isinstance(splits(root, max_resident_bytes=1000, resident=True).train, TensorSplit)
    assert not isinstance(splits(root, resident=False).train, TensorSplit)


def test_other_files_are_passed_over(root, splits):
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


def test_one_class_is_nothing_to_classify(root, train):
    """As where root/train/images/ holds the folders of the classes."""
    shutil.rmtree(root / "train" / "red")
    shutil.rmtree(root / "test")
    with pytest.raises(ConfigError, match="has only one class, blue"):
        train("data=image_folder", f"data.root={root}", "data.batch_size=2")


def test_links(root, splits):
    """Back to a folder that they lie in: not followed; to nowhere: an image is missing."""
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


def test_size_of_the_first_image_is_that_of_the_upright_one(tmp_path, splits):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "train" / "a").mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (12, 8)).save(tmp_path / "train" / "a" / f"{number}.jpg", exif=exif)
    assert splits(tmp_path, val_fraction=0.5).spec.image_size == (12, 8)


def test_name_that_is_no_utf8(root, splits):
    image = (root / "train" / "red" / "3.png").read_bytes()
    (root / "train" / "red" / os.fsdecode(b"caf\xe9.png")).write_bytes(image)
    assert len(splits(root, resident=True).train) == 19
    assert splits(root, resident=False).train.identity()


WRONG = {
    r"train/green has no images": lambda root: (root / "train/green").mkdir(),
    r"test/green is a class that train/ does not have": lambda root: (root / "test/green").mkdir(),
    r"train has no class folders": lambda root: emptied(root / "train"),
    r"data\.root: there is no folder .*/train": lambda root: shutil.rmtree(root / "train"),
}


def emptied(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize("message", WRONG)
def test_wrong_folders(root, splits, message):
    WRONG[message](root)
    with pytest.raises(ConfigError, match=message):
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
def test_an_image_that_does_not_suit(root, splits, mode, size, settings, message):
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


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_postscript_starts_no_other_program(tmp_path, name):
    """PIL runs Ghostscript for a file that begins so, whatever it is called."""
    (tmp_path / name).write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    spec = ImageSpec("photos", 1, (8, 8), ("a",), (0.5,), (0.5,))
    with pytest.raises(ConfigError, match=f"{name}: unknown image format"):
        read_image(tmp_path / name, spec)
    with pytest.raises(ConfigError, match=f"{name}: unknown image format"):
        size_of(str(tmp_path / name))


def test_the_limit_of_pixels_holds_for_predictions_too(tmp_path):
    Image.new("1", (9400, 9400)).save(tmp_path / "a.png")  # 88 megapixels in 11 kB
    spec = ImageSpec("photos", 1, (8, 8), ("a",), (0.5,), (0.5,))
    with pytest.raises(ConfigError, match="more than the allowed 50,000,000"):
        read_image(tmp_path / "a.png", spec)
