"""Image batches on the device: uint8 images become augmented, normalized input for a model."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from core.errors import ConfigError
from data.splits import Batch, Draws, ImageSpec, Splits, StreamedSplit, TensorSplit

Augment = Callable[[Tensor, Draws], Tensor]


class PrepareImages:
    """uint8 ``(N, C, H, W)`` -> float, same shape: augmented, then ``(x / 255 - mean) / std``.

    Each augmentation maps uint8 images to uint8 images of the same size, with draws of its own for
    every sample.
    """

    is_per_sample = True

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], augment: Sequence[Augment]
    ) -> None:
        self.augment = tuple(augment)
        # one multiplication and one addition: x * scale + shift
        self.scale = torch.tensor([1 / (255 * s) for s in std]).view(1, -1, 1, 1)
        self.shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(
            1, -1, 1, 1
        )

    def __call__(self, batch: Batch, draws: Draws | None) -> Batch:
        images, *rest = batch
        if draws is not None:
            for augment in self.augment:
                images = augment(images, draws)
        if self.scale.device != images.device:
            self.scale, self.shift = self.scale.to(images.device), self.shift.to(images.device)
        # conversion first: mixed types would take a path several times as slow
        return images.to(self.scale.dtype).mul_(self.scale).add_(self.shift), *rest


def image_splits(
    name: str,
    train: TensorSplit | StreamedSplit,
    val: TensorSplit | StreamedSplit | None,
    test: TensorSplit | StreamedSplit | None,
    class_names: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    augment: Sequence[Augment] = (),
    synthetic: bool = False,
) -> Splits:
    """Splits of uint8 images ``(N, C, H, W)`` with int64 labels ``(N,)``.

    ``mean`` and ``std`` have one value per channel, or one for all.

    Raises:
        ConfigError: they have another number of values, or are not positive.
    """
    if not all(callable(step) for step in augment):
        raise ConfigError(
            f"data.augment={augment} should be a list of _target_s of data/augment.py"
        )
    image = train.gather(torch.tensor([0]))[0][0] if isinstance(train, TensorSplit) else train[0][0]
    channels, height, width = image.shape
    means, stds = per_channel(mean, channels, "mean"), per_channel(std, channels, "std")
    if min(stds) <= 0:
        raise ConfigError(f"data.std={list(std)} should be above 0")
    spec = ImageSpec(
        name=name,
        in_channels=channels,
        image_size=(height, width),
        class_names=tuple(class_names),
        mean=means,
        std=stds,
        synthetic=synthetic,
    )
    return Splits(train, val, test, spec, PrepareImages(means, stds, augment))


def per_channel(values: Sequence[float], channels: int, name: str) -> tuple[float, ...]:
    """``values`` for every channel; a single one stands for all."""
    if len(values) not in (1, channels):
        raise ConfigError(
            f"data.{name}={list(values)} should have one value, or one for each of the "
            f"{channels} channels"
        )
    return tuple(values) * (channels // len(values))


def as_size(value: Any) -> tuple[int, int]:
    """Height and width in pixels, from a pair or from one number for both."""
    size = tuple(value) if isinstance(value, list) else (value, value)
    whole = [isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in size]
    if len(size) != 2 or not all(whole):
        raise ConfigError(
            f"data.image_size={value} should be a number of pixels, or two: height, width"
        )
    return size
