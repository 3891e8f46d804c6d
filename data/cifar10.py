"""CIFAR-10 in its own pickled batches, as torchvision downloads them."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from core.errors import ConfigError
from data.download import download
from data.images import Augment, image_splits
from data.splits import Splits, TensorSplit, stratified_split

SPLIT_SEED = 5000
CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def cifar10(
    root: str,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    augment: Sequence[Augment] = (),
) -> Splits:
    """45,000 training, 5,000 validation and 10,000 test images, 3x32x32.

    Read from ``root/cifar-10-batches-py``; downloaded only if that is not there. Validation is a
    tenth of the 50,000 images for training, every class alike.

    Raises:
        ConfigError: a file is damaged, or the files can neither be found nor downloaded.
    """
    folder = Path(root) / "cifar-10-batches-py"
    if not folder.is_dir():
        download("CIFAR10", root)
    batches = [read_batch(folder / f"data_batch_{number}") for number in range(1, 6)]
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    train, val = (
        TensorSplit(images[part], labels[part])
        for part in stratified_split(labels, (0.9, 0.1), SPLIT_SEED)
    )
    test = TensorSplit(*read_batch(folder / "test_batch"))
    return image_splits("cifar10", train, val, test, CLASS_NAMES, mean, std, augment)


def read_batch(file: Path) -> tuple[Tensor, Tensor]:
    """Images ``(N, 3, 32, 32)`` and labels ``(N,)`` of one file."""
    try:
        with file.open("rb") as stream:
            content = ArraysOnly(stream, encoding="latin1").load()
        images = torch.from_numpy(content["data"].reshape(-1, 3, 32, 32))
        labels = torch.tensor(content["labels"])
    except OSError as error:
        raise ConfigError(f"data.root: cannot read {file}: {error.strerror}") from error
    except Exception as error:  # whatever a damaged pickle raises
        raise ConfigError(
            f"{file} is damaged: delete its folder to have it downloaded again ({error})"
        ) from error
    if len(images) != len(labels):
        raise ConfigError(f"{file}: {len(images)} images, but {len(labels)} labels")
    return images, labels


class ArraysOnly(pickle.Unpickler):
    """Reads arrays, lists and texts: a pickle that names anything else could run any code."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray"):
            if name == "_reconstruct":
                return numpy._core.multiarray._reconstruct  # type: ignore[attr-defined]
            if name in ("ndarray", "dtype"):
                return getattr(numpy, name)
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a data set")
