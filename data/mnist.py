"""MNIST, as torchvision downloads it."""

from collections.abc import Sequence

from data.images import Augment, image_splits
from data.splits import Splits, stratified_split
from data.torchvision_set import training_and_test

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
    digits, test = training_and_test("MNIST", root)
    parts = stratified_split(digits.tensors[1], (11 / 12, 1 / 12), SPLIT_SEED)
    train, val = map(digits.take, parts)
    class_names = [str(digit) for digit in range(10)]
    return image_splits("mnist", train, val, test, class_names, mean, std, augment)
