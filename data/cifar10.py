"""CIFAR-10, as torchvision downloads it."""

from collections.abc import Sequence

from data.images import Augment, image_splits
from data.splits import Splits, stratified_split
from data.torchvision_set import training_and_test

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

    Read from ``root/cifar-10-batches-py``; downloaded if that is not there or not as published.
    Validation is a tenth of the 50,000 images for training, every class alike.

    Raises:
        ConfigError: the files can neither be found nor downloaded.
    """
    images, test = training_and_test("CIFAR10", root)
    parts = stratified_split(images.tensors[1], (0.9, 0.1), SPLIT_SEED)
    train, val = map(images.take, parts)
    return image_splits("cifar10", train, val, test, CLASS_NAMES, mean, std, augment)
