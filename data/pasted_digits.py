"""Images with several digits, for multi-label classification and for segmentation."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.schema import Count
from data.draws import seeded
from data.held_out import split_off, train_val_test
from data.images import Augment, image_splits
from data.mnist5k import FRACTIONS, all_digits
from data.splits import Splits, TensorSplit

SEED = 5000
SIDE = 28  # pixels of a digit
DIGITS = "0123456789"
CONTRAST = 60  # of 255: difference between a digit and its background in every channel
INK = 96  # of 255: a brighter pixel belongs to the digit
ROUGHNESS = (4, 20)  # grid sizes of the noises that add up to a texture


def several_digits(
    root: str,
    num_train: Count,
    num_val: Count,
    num_test: Count,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    augment: Sequence[Augment] = (),
) -> Splits:
    """Multi-label images 1x56x56 with one to four digits of ``data=mnist5k``, one per quarter.

    Labels are ``(N, 10)``, 1 for every digit that occurs. No two splits share a digit's image.
    """
    parts: dict[str, TensorSplit] = {}
    for name, (images, labels), count in digits(root, num_train, num_val, num_test):
        generator = seeded(SEED, len(parts))
        canvas = torch.zeros(count, 1, 2 * SIDE, 2 * SIDE, dtype=torch.uint8)
        present = torch.zeros(count, len(DIGITS), dtype=torch.uint8)
        numbers = torch.randint(1, 5, (count,), generator=generator)
        quarters = torch.rand(count, 4, generator=generator).argsort(1)
        chosen = torch.randint(len(images), (count, 4), generator=generator)
        for i, number in enumerate(numbers.tolist()):
            for quarter, j in zip(quarters[i, :number].tolist(), chosen[i].tolist(), strict=False):
                top, left = SIDE * (quarter // 2), SIDE * (quarter % 2)
                canvas[i, :, top : top + SIDE, left : left + SIDE] = images[j]
                present[i, labels[j]] = 1
        parts[name] = TensorSplit(canvas, present)
    return image_splits("several_digits", *train_val_test(parts), DIGITS, mean, std, augment)


def digits_on_textures(
    root: str,
    num_train: Count,
    num_val: Count,
    num_test: Count,
    num_digits: Count,
    image_size: Annotated[int, Field(ge=SIDE)],
    mean: float | Sequence[float],
    std: float | Sequence[float],
    augment: Sequence[Augment] = (),
) -> Splits:
    """Textured digits on a textured background, with masks; 3 x ``image_size`` x ``image_size``.

    A mask is uint8 ``(N, H, W)``: 0 is background, 1 to 10 are the digits 0 to 9. Each image has 1
    to ``num_digits`` at random places, later ones on top. No two splits share a digit's image.
    """
    parts: dict[str, TensorSplit] = {}
    for name, (images, labels), count in digits(root, num_train, num_val, num_test):
        generator = seeded(SEED, len(parts))
        masks = torch.zeros(count, image_size, image_size, dtype=torch.uint8)
        numbers = torch.randint(1, num_digits + 1, (count,), generator=generator)
        places = torch.randint(image_size - SIDE + 1, (count, num_digits, 2), generator=generator)
        chosen = torch.randint(len(images), (count, num_digits), generator=generator)
        for i, number in enumerate(numbers.tolist()):
            for j, (top, left) in zip(chosen[i, :number], places[i].tolist(), strict=False):
                window = masks[i, top : top + SIDE, left : left + SIDE]
                window[images[j, 0] > INK] = labels[j].to(torch.uint8) + 1
        colours = 128 + 40 * torch.randn(count, 3, 1, 1, generator=generator)
        signs = 2 * torch.randint(2, (count, 3, 1, 1), generator=generator) - 1
        ground = textures(colours, image_size, generator)
        figure = textures(colours + CONTRAST * signs, image_size, generator)
        pixels = torch.where(masks[:, None] > 0, figure, ground)
        parts[name] = TensorSplit(pixels, masks)
    names = ["ground", *DIGITS]
    return image_splits("digits_on_textures", *train_val_test(parts), names, mean, std, augment)


def digits(
    root: str, num_train: int, num_val: int, num_test: int
) -> list[tuple[str, tuple[Tensor, ...], int]]:
    """Name of each split, the digit images and labels it may use, and its number of samples."""
    counts = {"train": num_train, "val": num_val, "test": num_test}
    parts = split_off({"train": TensorSplit(*all_digits(root))}, FRACTIONS)
    return [(name, parts[name].tensors, count) for name, count in counts.items()]


def textures(colours: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Smooth noise around ``colours`` ``(N, 3, 1, 1)``, uint8 ``(N, 3, size, size)``."""
    values = colours
    for points in ROUGHNESS:
        noise = torch.randn(len(colours), 3, points, points, generator=generator)
        values = values + 15 * F.interpolate(noise, (size, size), mode="bilinear")
    return values.round().clamp(0, 255).to(torch.uint8)
