"""Digits rotated by random angles: regression on images."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field

from data.augment import affine
from data.draws import seeded
from data.held_out import split_off, train_val_test
from data.images import Augment, image_splits
from data.mnist5k import FRACTIONS, all_digits
from data.splits import Splits, TensorSplit, quantities

SEED = 5000


def rotated_digits(
    root: str,
    max_degrees: Annotated[float, Field(gt=0, le=180)],
    mean: float | Sequence[float],
    std: float | Sequence[float],
    augment: Sequence[Augment] = (),
) -> Splits:
    """3,500 training, 500 validation and 1,000 test digits of ``data=mnist5k``, each rotated once.

    The target is the angle, uniform in ``[-max_degrees, max_degrees]``, positive counter-clockwise.
    The slant of the handwriting is irreducible noise in it.
    """
    images, labels = all_digits(root)
    angles = max_degrees * (2 * torch.rand(len(images), generator=seeded(SEED)) - 1)
    ones, zeros = torch.ones(len(images), 1, 1), torch.zeros(len(images), 1, 1)
    turned = affine(images, angles.deg2rad().view(-1, 1, 1), ones, zeros, zeros)
    parts = split_off({"train": TensorSplit(turned, angles[:, None])}, FRACTIONS, labels)
    angle = quantities(["angle"], ["degrees"], parts["train"].tensors[1])
    return image_splits(
        "rotated_digits", *train_val_test(parts), (), mean, std, augment, quantities=angle
    )
