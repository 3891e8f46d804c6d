"""MNIST in its own IDX files, as torchvision downloads them."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy
import torch
from torch import Tensor

from core.errors import ConfigError
from data.download import download
from data.images import Augment, image_splits
from data.splits import Splits, TensorSplit, stratified_split

SPLIT_SEED = 5000


def mnist(
    root: str,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    augment: Sequence[Augment] = (),
) -> Splits:
    """55,000 training, 5,000 validation and 10,000 test digits, 1x28x28.

    Read from ``root/MNIST/raw``; downloaded only if that is not there. Validation is a twelfth of
    the 60,000 digits for training, the same proportion of every class.

    Raises:
        ConfigError: a file is damaged, or the files can neither be found nor downloaded.
    """
    raw = Path(root) / "MNIST" / "raw"
    if not raw.is_dir():
        download("MNIST", root)
    images, labels = read_part(raw, "train")
    digits = TensorSplit(images, labels)
    train, val = map(digits.take, stratified_split(labels, (11 / 12, 1 / 12), SPLIT_SEED))
    test = TensorSplit(*(tensor.clone() for tensor in read_part(raw, "t10k")))  # off the file
    class_names = [str(digit) for digit in range(10)]
    return image_splits("mnist", train, val, test, class_names, mean, std, augment)


def read_part(raw: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images ``(N, 1, H, W)`` and labels ``(N,)`` of ``train`` or ``t10k``."""
    images = read_idx(raw / f"{part}-images-idx3-ubyte", 3)
    labels = read_idx(raw / f"{part}-labels-idx1-ubyte", 1)
    if len(images) != len(labels):
        raise ConfigError(f"{raw}: {len(images)} {part} images, but {len(labels)} labels")
    return images.unsqueeze(1), labels.long()


def read_idx(file: Path, num_dimensions: int) -> Tensor:
    """A uint8 tensor from an IDX file: magic number, sizes, then the bytes, which stay there.

    Picking samples from the file is three times as fast as reading it and picking then.
    """
    try:
        content = numpy.memmap(file, mode="c") if file.stat().st_size else numpy.empty(0, "u1")
    except OSError as error:
        raise ConfigError(f"data.root: cannot read {file}: {error.strerror}") from error
    header = 4 * (1 + num_dimensions)
    magic, *sizes = content[:header].view(">u4").tolist() if len(content) >= header else [0]
    # 0x08 stands for unsigned bytes; the last byte counts the dimensions
    if magic != 0x0800 + num_dimensions or len(content) - header != math.prod(sizes):
        raise ConfigError(f"{file} is damaged: delete it to have it downloaded again")
    return torch.from_numpy(content[header:]).view(sizes)
