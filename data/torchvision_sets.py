"""MNIST and CIFAR-10, which torchvision downloads, checks and reads."""

from collections.abc import Sequence

import torch

from core.errors import ConfigError, reason
from data.images import Augment, image_splits
from data.splits import Splits, TensorSplit, stratified_split

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


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
    train, val = stratified(read("MNIST", root, train=True), val_fraction=1 / 12)
    test = read("MNIST", root, train=False)
    return image_splits("mnist", train, val, test, "0123456789", mean, std, augment)


def cifar10(
    root: str,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    augment: Sequence[Augment] = (),
) -> Splits:
    """45,000 training, 5,000 validation and 10,000 test images, 3x32x32.

    Read from ``root/cifar-10-batches-py``; downloaded if that is not there or not as published.
    Validation is a tenth of the 50,000 images for training, every class alike.

    Raises:
        ConfigError: the files can neither be found nor downloaded.
    """
    train, val = stratified(read("CIFAR10", root, train=True), val_fraction=0.1)
    test = read("CIFAR10", root, train=False)
    return image_splits("cifar10", train, val, test, CIFAR10_CLASSES, mean, std, augment)


def stratified(split: TensorSplit, val_fraction: float) -> list[TensorSplit]:
    """Training and validation part, every class alike."""
    parts = stratified_split(split.tensors[1], (1 - val_fraction, val_fraction))
    return [split.take(part) for part in parts]


def read(name: str, root: str, train: bool) -> TensorSplit:
    """uint8 images ``(N, C, H, W)`` and int64 labels ``(N,)`` of torchvision's ``name``."""
    from torchvision import datasets  # costs a second: only for the runs that use it

    try:
        content = getattr(datasets, name)(root, train=train, download=True)
    except Exception as error:  # no network, no permission, whatever a damaged file raises
        raise ConfigError(
            f"data.root={root}: {name} can neither be read nor downloaded: {reason(error)}; a "
            "damaged file is downloaded again once it is deleted"
        ) from error
    images = torch.as_tensor(content.data)
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return TensorSplit(images, torch.as_tensor(content.targets))
