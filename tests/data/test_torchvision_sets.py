"""MNIST and CIFAR-10: complete splits, and one-line errors for damaged or missing files."""

import os
import pickle

import numpy
import pytest
import torch
from torchvision import datasets

from core.errors import ConfigError

COUNTS = {"mnist": (110, 10, 20), "cifar10": (90, 10, 10)}


def write_idx(file, array):
    header = numpy.array([0x0800 + array.ndim, *array.shape], dtype=">i4")
    file.write_bytes(header.tobytes() + array.astype(numpy.uint8).tobytes())


def write_mnist(root):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random = numpy.random.default_rng(0)
    for part, count in (("train", 120), ("t10k", 20)):
        write_idx(raw / f"{part}-images-idx3-ubyte", random.integers(0, 256, (count, 28, 28)))
        write_idx(raw / f"{part}-labels-idx1-ubyte", numpy.arange(count) % 10)


def write_cifar10(root):
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for seed, name in enumerate([f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]):
        labels = list(range(10)) * (1 if name == "test_batch" else 2)
        pixels = numpy.random.default_rng(seed).integers(0, 256, (len(labels), 3072), numpy.uint8)
        content = {"data": pixels, "labels": labels}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a"] * 10}))


@pytest.fixture
def splits(make_splits, tmp_path):
    """Return a function that builds the splits of the files in ``tmp_path``."""
    return lambda name: make_splits(name, root=str(tmp_path))


@pytest.mark.parametrize(("name", "write"), [("mnist", write_mnist), ("cifar10", write_cifar10)])
def test_splits_are_complete_and_deterministic(name, write, splits, tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    write(tmp_path)
    built, second = splits(name), splits(name)
    parts = (built.train, built.val, built.test)
    assert tuple(map(len, parts)) == COUNTS[name]
    assert torch.equal(built.val.tensors[0], second.val.tensors[0])
    assert built.val.tensors[1].bincount().tolist() == [1] * 10
    dataset_class = getattr(datasets, name.upper())
    for train, ours in ((True, parts[:2]), (False, parts[2:])):
        reference = numpy.asarray(dataset_class(str(tmp_path), train=train, download=False).data)
        images = torch.cat([part.tensors[0] for part in ours])
        assert tuple(images.shape[1:]) == (built.spec.in_channels, *built.spec.image_size)
        pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        assert sorted(map(bytes, pixels)) == sorted(map(bytes, numpy.ascontiguousarray(reference)))


@pytest.mark.parametrize(
    "content", [b"", b"\x01", None], ids=["empty", "wrong header", "truncated"]
)
def test_damaged_file_is_rejected(content, splits, tmp_path):
    write_mnist(tmp_path)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1] if content is None else content)
    with pytest.raises(ConfigError, match="MNIST can be neither read nor downloaded"):
        splits("mnist")


def test_fewer_labels_than_images_are_rejected(splits, tmp_path):
    write_mnist(tmp_path)
    write_idx(tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte", numpy.zeros(3))
    with pytest.raises(ConfigError, match="differ in length"):
        splits("mnist")


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10"])
def test_failed_download_raises_one_line_error(name, splits, monkeypatch):
    def fail(self):
        raise OSError("<urlopen error>\nTried many, got: ...")

    monkeypatch.setattr(getattr(datasets, name), "download", fail)
    with pytest.raises(ConfigError, match=f"{name} can be neither read nor downloaded") as info:
        splits(name.lower())
    assert "\n" not in str(info.value)


def test_modified_file_is_not_unpickled(splits, tmp_path, monkeypatch):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps(Attack()))
    monkeypatch.setattr(datasets.CIFAR10, "download", lambda self: None)
    with pytest.raises(ConfigError, match="CIFAR10 can be neither read nor downloaded"):
        splits("cifar10")
    assert not (tmp_path / "attacked").exists()
