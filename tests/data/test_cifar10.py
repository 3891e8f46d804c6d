"""CIFAR-10 is read from its pickled batches, and only arrays are."""

import os
import pickle

import numpy
import pytest
import torch
from torchvision import datasets

from core.errors import ConfigError
from data.build import build_splits


def write_batch(file, labels, seed):
    pixels = numpy.random.default_rng(seed).integers(0, 256, (len(labels), 3072), numpy.uint8)
    file.write_bytes(pickle.dumps({"data": pixels, "labels": labels}, protocol=2))


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for number in range(1, 6):
        write_batch(folder / f"data_batch_{number}", list(range(10)) * 2, number)
    write_batch(folder / "test_batch", list(range(10)), 6)
    return tmp_path


@pytest.fixture(scope="module")
def splits(composed):
    config = composed("data=cifar10")["data"]

    def build(root):
        return build_splits({**config, "root": str(root)})

    return build


def test_every_image_once_and_as_torchvision_reads_it(root, splits, monkeypatch):
    built = splits(root)
    assert [len(split) for split in (built.train, built.val, built.test)] == [90, 10, 10]
    names = {"label_names": ["a"] * 10}
    (root / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps(names))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    reference = datasets.CIFAR10(str(root), train=True, download=False)
    channels_first = numpy.ascontiguousarray(reference.data.transpose(0, 3, 1, 2))
    both = torch.cat([built.train.tensors[0], built.val.tensors[0]])
    assert sorted(map(bytes, both.numpy())) == sorted(map(bytes, channels_first))
    assert built.val.tensors[1].bincount().tolist() == [1] * 10
    assert [type(step).__name__ for step in built.prepare.augment] == [
        "RandomCrop",
        "HorizontalFlip",
    ]


def test_a_pickle_cannot_run_code(root, splits):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(root / "attacked"),)

    (root / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ConfigError, match=r"data_batch_3 is damaged.*mkdir"):
        splits(root)
    assert not (root / "attacked").exists()


def test_damaged_and_missing_files(root, splits):
    file = root / "cifar-10-batches-py" / "data_batch_2"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ConfigError, match="data_batch_2 is damaged"):
        splits(root)
    file.unlink()
    with pytest.raises(ConfigError, match=r"cannot read .*data_batch_2"):
        splits(root)


def test_no_network(tmp_path, splits, monkeypatch):
    def fail(root, download):
        raise OSError("<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setattr(datasets, "CIFAR10", fail)
    with pytest.raises(ConfigError, match="does not hold CIFAR10, and it cannot be downloaded"):
        splits(tmp_path)
