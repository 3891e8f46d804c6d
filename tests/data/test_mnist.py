"""MNIST is read from its IDX files; what is wrong with them is said in one line."""

import numpy
import pytest
import torch
from torchvision import datasets

from core.errors import ConfigError
from data.build import build_splits


def write_idx(file, array):
    header = numpy.array([0x0800 + array.ndim, *array.shape], dtype=">i4")
    file.write_bytes(header.tobytes() + array.astype(numpy.uint8).tobytes())


@pytest.fixture
def root(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random = numpy.random.default_rng(0)
    for part, count in (("train", 120), ("t10k", 20)):
        images = random.integers(0, 256, (count, 28, 28))
        write_idx(raw / f"{part}-images-idx3-ubyte", images)
        write_idx(raw / f"{part}-labels-idx1-ubyte", numpy.arange(count) % 10)
    return tmp_path


@pytest.fixture(scope="module")
def splits(composed):
    config = composed("data=mnist")["data"]

    def build(root):
        return build_splits({**config, "root": str(root)})

    return build


def test_every_image_once_and_as_torchvision_reads_it(root, splits):
    built = splits(root)
    assert [len(split) for split in (built.train, built.val, built.test)] == [110, 10, 20]
    reference = datasets.MNIST(str(root), train=True, download=False)
    both = torch.cat([built.train.tensors[0], built.val.tensors[0]]).squeeze(1)
    assert sorted(map(bytes, both.numpy())) == sorted(map(bytes, reference.data.numpy()))
    test = datasets.MNIST(str(root), train=False, download=False)
    assert torch.equal(built.test.tensors[0].squeeze(1), test.data)
    assert torch.equal(built.test.tensors[1], test.targets)
    assert built.val.tensors[1].bincount().tolist() == [1] * 10
    assert built.spec.num_classes == 10
    assert built.spec.image_size == (28, 28)


def test_the_split_does_not_depend_on_the_seed(root, splits):
    first, second = splits(root), splits(root)
    assert torch.equal(first.val.tensors[0], second.val.tensors[0])


@pytest.mark.parametrize("damage", ["short", "other kind", "empty"])
def test_damaged_file(root, splits, damage):
    file = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    content = file.read_bytes()
    damaged = {"short": content[:-1], "other kind": b"\x01" + content[1:], "empty": b""}
    file.write_bytes(damaged[damage])
    with pytest.raises(ConfigError, match="train-images-idx3-ubyte is damaged"):
        splits(root)


def test_missing_file(root, splits):
    (root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ConfigError, match=r"data\.root: cannot read .*t10k-labels"):
        splits(root)


def test_counts_that_differ(root, splits):
    write_idx(root / "MNIST" / "raw" / "train-labels-idx1-ubyte", numpy.zeros(3))
    with pytest.raises(ConfigError, match="120 train images, but 3 labels"):
        splits(root)


def test_no_network(tmp_path, splits, monkeypatch):
    def fail(root, download):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nTried many, got: ...")

    monkeypatch.setattr(datasets, "MNIST", fail)
    with pytest.raises(
        ConfigError, match=r"does not hold MNIST, and .*: Error downloading"
    ) as info:
        splits(tmp_path)
    assert "\n" not in str(info.value)
