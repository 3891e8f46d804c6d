"""Digits turned by random angles, which are to be told: regression on images."""

from collections.abc import Sequence

import torch

from core.errors import ConfigError
from data.augment import moved
from data.draws import seeded
from data.images import Augment, image_splits
from data.mnist5k import all_digits
from data.splits import Splits, TensorSplit, quantities, stratified_split

SEED = 5000


def rotated_digits(
    root: str,
    max_degrees: float,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    augment: Sequence[Augment] = (),
) -> Splits:
    """3,500 training, 500 validation and 1,000 test digits of ``data=mnist5k``, each turned once.

    The angle is uniform in ``[-max_degrees, max_degrees]``, counter-clockwise above 0; how a person
    slants a digit is noise that no model can know.
    """
    if not 0 < max_degrees <= 180:
        raise ConfigError(f"data.max_degrees={max_degrees} should be above 0 and at most 180")
    images, labels = all_digits(root)
    angles = max_degrees * (2 * torch.rand(len(images), generator=seeded(SEED)) - 1)
    ones, zeros = torch.ones(len(images), 1, 1), torch.zeros(len(images), 1, 1)
    turned = moved(images, angles.deg2rad().view(-1, 1, 1), ones, zeros, zeros)
    train, val, test = (
        TensorSplit(turned[part], angles[part, None])
        for part in stratified_split(labels, (0.7, 0.1, 0.2))
    )
    return image_splits(
        "rotated_digits",
        train,
        val,
        test,
        class_names=(),
        mean=mean,
        std=std,
        augment=augment,
        quantities=quantities(["angle"], ["degrees"], train.tensors[1]),
    )
