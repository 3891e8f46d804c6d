"""Data sets stored in one file or in tar shards, or provided by a library."""

import io
import json
import tarfile

import numpy
import pytest
import torch
from PIL import Image

from core.errors import ConfigError
from data.stored_images import StoredImages

LABELS = torch.arange(40) % 4
IMAGES = (torch.arange(40 * 3 * 8 * 8) % 251).view(40, 3, 8, 8).to(torch.uint8)


@pytest.fixture
def npz(make_splits, tmp_path):
    """Return a function that saves arrays to a file and builds its splits."""

    def build(arrays, **settings):
        if isinstance(arrays, str):
            (tmp_path / "set.npz").write_text(arrays)
        else:
            numpy.savez(tmp_path / "set.npz", **arrays)
        return make_splits("npz", path=str(tmp_path / "set.npz"), **settings)

    return build


CHANNELS_LAST = IMAGES.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    "arrays",
    [
        {"x_train": CHANNELS_LAST[:30], "y_train": LABELS[:30], "x_test": CHANNELS_LAST[30:],
         "y_test": LABELS[30:]},
        {"train_images": CHANNELS_LAST[:30] / 255, "train_labels": LABELS[:30, None],
         "test_images": CHANNELS_LAST[30:] / 255, "test_labels": LABELS[30:, None]},
        {"train_images": IMAGES[:30], "train_labels": LABELS[:30].int(),
         "test_images": IMAGES[30:], "test_labels": LABELS[30:].int()},
    ],
    ids=["keras", "medmnist", "channels first"],
)  # fmt: skip
def test_npz_images_in_common_layouts(npz, arrays):
    splits = npz(arrays)
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [27, 3, 10]
    images, labels = splits.test.tensors
    assert torch.equal(images, IMAGES[30:])
    assert torch.equal(labels, LABELS[30:])
    assert (splits.spec.num_classes, splits.spec.image_size) == (4, (8, 8))


def test_npz_table_targets_set_the_task(npz):
    """Float targets are quantities, integers are classes; a missing value adds an indicator."""
    rows = torch.randn(40, 3)
    rows[0, 1] = float("nan")
    splits = npz({"x": rows, "y": torch.randn(40, 2)}, test_fraction=0)
    assert (len(splits.train), len(splits.val), splits.test) == (36, 4, None)
    assert len(splits.spec.quantities.names) == 2
    classes = npz({"x": rows, "y": LABELS})
    assert classes.spec.class_names == ("0", "1", "2", "3")
    assert classes.spec.in_features in (3, 4)


@pytest.mark.parametrize("inputs", [CHANNELS_LAST, torch.randn(40, 3)], ids=["images", "rows"])
def test_npz_targets_of_0_and_1_are_multilabel(npz, inputs):
    labels = (torch.arange(40)[:, None] + torch.arange(3)) % 2
    splits = npz({"x": inputs, "y": labels}, class_names=["a", "b", "c"])
    assert splits.train.tensors[1].dtype == torch.uint8
    assert splits.train.tensors[1].shape == (32, 3)
    assert splits.spec.class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"a": IMAGES, "b": LABELS},
            "needs arrays such as x_train and y_train, or x and y; it has a",
        ),
        ({"x": IMAGES[:9], "y": LABELS}, "there are 9 inputs and 40 targets of train"),
        (
            {"x": IMAGES.int() * 300, "y": LABELS},
            "int32 .* from 0 to 7.5e.04; images should be uint8",
        ),
        ({"x": IMAGES, "y": numpy.array(["a"] * 40)}, "targets are <U1 of shape"),
        ({"x": IMAGES, "y": LABELS[:, None].expand(-1, 2)}, "labels .*, integers 0 and 1"),
        ({"x": numpy.array([{}] * 40), "y": LABELS}, "cannot be read: Object arrays cannot be"),
        ("x,y", "cannot be read"),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[..., :4], "y_test": LABELS},
            r"samples of test have the shape \(3, 8, 4\), those of train \(3, 8, 8\)",
        ),
    ],
)
def test_wrong_npz_arrays_are_rejected(npz, arrays, message):
    with pytest.raises(ConfigError, match=rf"set\.npz.* {message}"):
        npz(arrays)


def test_unused_npz_arrays_are_reported(npz):
    splits = npz({"x_train": IMAGES, "y_train": LABELS, "x_valid": IMAGES, "y_valid": LABELS})
    assert any("set.npz: x_valid, y_valid are not used" in note for note in splits.notes)


def png(image):
    content = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(content, "png")
    return content.getvalue()


def write_shard(file, samples, mode="w"):
    """Write a tar file of ``samples``, pairs of a file name and its content."""
    with tarfile.open(file, mode) as shard:
        for name, content in samples:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))


def shard_files(indices):
    for i in indices:
        yield f"./some/{i:05d}.png", png(IMAGES[i])
        yield f"./some/{i:05d}.json", json.dumps({"label": f"class {LABELS[i]}"}).encode()


@pytest.mark.parametrize("resident", [True, False])
def test_webdataset_shards_are_read(make_splits, tmp_path, resident):
    for shard in range(3):
        write_shard(
            tmp_path / f"train-{shard}.tar", shard_files(range(10 * shard, 10 * shard + 10))
        )
    write_shard(tmp_path / "test.tar", shard_files(range(30, 40)))
    for _ in range(2):  # the second pass reads the saved index
        splits = make_splits("webdataset", root=str(tmp_path), resident=resident)
        assert isinstance(splits.train, StoredImages) != resident
        assert [len(split) for split in (splits.train, splits.val, splits.test)] == [27, 3, 10]
        assert splits.spec.class_names == ("class 0", "class 1", "class 2", "class 3")
        for i in range(10):
            image, label = splits.test[i]
            assert torch.equal(image, IMAGES[30 + i])
            assert label == LABELS[30 + i]
    write_shard(tmp_path / "test.tar", shard_files(range(5)))
    assert len(make_splits("webdataset", root=str(tmp_path)).test) == 5


@pytest.mark.parametrize(
    ("files", "mode", "message"),
    [
        ([("1.png", b""), ("1.cls", b"0"), ("2.png", b"")], "w", "the sample 2 has no class"),
        ([("1.cls", b"0")], "w", "the sample 1 has no image"),
        (
            [("1.png", b""), ("1.json", b"{}")],
            "w",
            r"train\.tar: 1\.json has no entry data\.label_key=label",
        ),
        ([("1.png", b""), ("1.cls", b"0")], "w:gz", "shards are tar files, not compressed"),
        ([], "w", "has no samples, each an image and its class"),
        ([], None, r"no shards match data\.train=train\*\.tar"),
        ([("1.png", b"no image"), ("1.cls", b"0")], "w", "cannot read the image"),
    ],
)
def test_wrong_shards_are_rejected(make_splits, tmp_path, files, mode, message):
    if mode:
        write_shard(tmp_path / "train.tar", files, mode)
    with pytest.raises(ConfigError, match=message):
        make_splits("webdataset", root=str(tmp_path))


def test_misspelled_setting_error_suggests_the_nearest(make_splits):
    for key, nearest in (("label_keyy", "label_key"), ("image_sizes", "image_size")):
        with pytest.raises(ConfigError, match=rf"did you mean data\.{nearest}\?"):
            make_splits("webdataset", **{key: 8})


def test_hugging_face_image_data_set(make_splits, tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"photo": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b", "c", "d"])}
    )
    images = [{"bytes": png(image), "path": None} for image in IMAGES]
    table = {"photo": images, "kind": LABELS.tolist()}
    saved = datasets.Dataset.from_dict(table, features=features)
    datasets.DatasetDict({"train": saved, "validation": saved}).save_to_disk(tmp_path / "set")
    path = str(tmp_path / "set")
    splits = make_splits("huggingface", root="", path=path)
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [36, 40, 4]
    assert splits.spec.class_names == ("a", "b", "c", "d")
    assert torch.equal(splits.val.tensors[0], IMAGES)
    assert torch.equal(splits.val.tensors[1], LABELS)
    with pytest.raises(ConfigError, match=r"data\.label_column=x: the columns are photo, kind"):
        make_splits("huggingface", root="", path=path, label_column="x")
    with pytest.raises(ConfigError, match=r"is not a data set saved by save_to_disk"):
        make_splits("huggingface", root="", path=str(tmp_path))


@pytest.mark.slow
def test_hugging_face_text_data_set(make_splits, tmp_path, tiny_bert):
    datasets = pytest.importorskip("datasets")
    table = {"text": ["a good film", "a bad film"] * 20, "label": [1, 0] * 20}
    datasets.Dataset.from_dict(table).save_to_disk(tmp_path / "set")
    path = str(tmp_path / "set")
    splits = make_splits("huggingface_text", root="", path=path, tokenizer=str(tiny_bert))
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [32, 4, 4]
    assert splits.spec.class_names == ("0", "1")


@pytest.mark.parametrize("resident", [True, False])
def test_torchvision_data_set_by_name(make_splits, resident):
    """FakeData generates an image on access, as other sets read it from a file."""
    options = {"size": 50, "image_size": [3, 8, 8], "num_classes": 4}
    splits = make_splits(
        "torchvision", name="FakeData", options=options, resident=resident, image_size=[6, 6]
    )
    assert isinstance(splits.train, StoredImages) != resident
    sizes = [len(split) for split in (splits.train, splits.val, splits.test)]
    assert sum(sizes) == 50
    assert min(sizes) >= 4
    assert splits.spec.image_size == (6, 6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FashonMNIST", r"no such data set; did you mean FashionMNIST\?"),
        ("VisionDataset", "is not a set of images with one class each"),
        ("os", "no such data set"),
    ],
)
def test_unsupported_torchvision_data_set_is_rejected(make_splits, name, message):
    with pytest.raises(ConfigError, match=message):
        make_splits("torchvision", name=name)
