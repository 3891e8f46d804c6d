"""Image batches on the device: uint8 images become augmented, normalized input for a model."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from core.errors import ConfigError, reason
from data.augment import PerImage
from data.background import common_background
from data.draws import BatchDraws, kept_global_generators
from data.splits import (
    Batch,
    ImageSpec,
    Quantities,
    Splits,
    StreamedSplit,
    TensorSplit,
    indexed,
)

Augment = Callable[[Tensor, BatchDraws], Tensor]


class PrepareImages:
    """uint8 ``(N, C, H, W)`` -> float, same shape: augmented, then ``(x / 255 - mean) / std``.

    Each augmentation maps uint8 images to uint8 images of the same size, with draws of its own for
    every sample.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], augment: Sequence[Augment]
    ) -> None:
        self.augment = tuple(augment)
        self.scale, self.shift = scale_and_shift(mean, std)

    def __call__(self, batch: Batch, draws: BatchDraws | None) -> Batch:
        images, *rest = batch
        if draws is not None:
            for augment in self.augment:
                images = augment(images, draws)
        self.scale, self.shift = self.scale.to(images.device), self.shift.to(images.device)
        # conversion first: mixed types would take a path several times as slow
        return images.to(self.scale.dtype).mul_(self.scale).add_(self.shift), *rest


def scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """``(x / 255 - mean) / std`` as ``x * scale + shift``; each ``(1, C, 1, 1)``."""
    scale = torch.tensor([1 / (255 * s) for s in std])
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])
    return scale.view(1, -1, 1, 1), shift.view(1, -1, 1, 1)


def image_splits(
    name: str,
    train: TensorSplit | StreamedSplit,
    val: TensorSplit | StreamedSplit | None,
    test: TensorSplit | StreamedSplit | None,
    class_names: Sequence[str],
    mean: Any,
    std: Any,
    augment: Any = (),
    synthetic: bool = False,
    quantities: Quantities | None = None,
) -> Splits:
    """Splits of uint8 images ``(N, C, H, W)`` with what is to be told of them.

    That are int64 labels ``(N,)``; where images have several, uint8 ``(N, classes)`` of 0 and 1; or
    float32 ``(N, quantities)``.

    Args:
        class_names: none where there are ``quantities``.
        mean, std: one value per channel, or one for all, as a number or a list.
        augment: a list of augmentations or transforms of torchvision.

    Raises:
        ConfigError: the images are no such tensors; ``mean`` or ``std`` has another number of
            values or one out of range; an augmentation does not suit the data.
    """
    train = indexed(train, "train")
    image, *targets = train[0]
    if not isinstance(image, Tensor) or image.dtype != torch.uint8 or image.ndim != 3:
        raise ConfigError(
            f"data={name}: an image should be uint8 of shape (channels, height, width), as it is "
            f"before ToTensor or a normalization; it is {described(image)}"
        )
    channels, height, width = image.shape
    means, stds = per_channel(mean, channels, "mean"), per_channel(std, channels, "std")
    if not 0 < min(stds) <= max(stds) <= 1 or not 0 <= min(means) <= max(means) <= 1:
        raise ConfigError(
            f"data.mean={mean} and data.std={std} should be in [0, 1], data.std above 0: they are "
            "of images whose white is 1, not 255"
        )
    spec = ImageSpec(
        name=name,
        in_channels=channels,
        image_size=(height, width),
        class_names=tuple(class_names),
        mean=means,
        std=stds,
        synthetic=synthetic,
        background=common_background(train),
        quantities=quantities,
    )
    prepare = PrepareImages(means, stds, augmentations(augment, image, targets))
    return Splits(train, val, test, spec, prepare)


def augmentations(augment: Any, image: Tensor, targets: Sequence[Any]) -> list[Augment]:
    """The augmentations, after each was tried on the first training sample.

    Raises:
        ConfigError: it is no list of augmentations, one of them does not suit the images, or the
            targets (such as masks) would have to be augmented with the images.
    """
    steps = augment or []
    if not isinstance(steps, list | tuple) or not all(callable(step) for step in steps):
        raise ConfigError(
            f"data.augment={augment} should be a list of _target_s of data/augment.py or of "
            "torchvision.transforms.v2"
        )
    shapes = [tuple(torch.as_tensor(target).shape) for target in targets]
    masks = [shape for shape in shapes if len(shape) > 1]
    if steps and masks:
        raise ConfigError(
            "data.augment would move the pixels of images and leave the targets of shape "
            f"{masks[0]} where they are; only classes and numbers can stay as they are: use "
            "data.augment=[]"
        )
    steps = [PerImage(step) if is_from_torchvision(step) else step for step in steps]
    for step in steps:
        try_augmentation(step, image)
    return steps


def is_from_torchvision(step: Any) -> bool:
    """Whether it is a transform of torchvision or derived from one; does not import torchvision."""
    return any(kind.__module__.startswith("torchvision.") for kind in type(step).__mro__)


def try_augmentation(step: Augment, image: Tensor) -> None:
    """Try an augmentation on two copies of ``image``, uint8 ``(C, H, W)``.

    Raises:
        ConfigError: it fails, or returns something else than uint8 images of the same size.
    """
    name = type(step.transform if isinstance(step, PerImage) else step).__name__
    images, draws = torch.stack([image, image]), BatchDraws(0, 0, 0, 2, 0, 2)
    try:
        with kept_global_generators():
            made = step(images, draws)
    except Exception as error:  # whatever somebody else's code raises
        raise ConfigError(
            f"data.augment: {name} fails on uint8 images of shape {tuple(image.shape)}: "
            f"{type(error).__name__}: {reason(error)}"
        ) from error
    if not isinstance(made, Tensor) or (made.shape, made.dtype) != (images.shape, images.dtype):
        what = described(made[0] if isinstance(made, Tensor) else made)
        raise ConfigError(
            f"data.augment: {name} makes {what} of uint8 images of shape {tuple(image.shape)}; "
            "an augmentation keeps type and size"
        )


def described(value: Any) -> str:
    """A tensor's type and shape, or what else it is."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{value.dtype} of shape {tuple(value.shape)}".removeprefix("torch.")


def per_channel(values: Any, channels: int, name: str) -> tuple[float, ...]:
    """``values``, a number or a list, for every channel; a single one stands for all."""
    listed = values if isinstance(values, list | tuple) else [values]
    are_numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in listed)
    if len(listed) not in (1, channels) or not are_numbers:
        raise ConfigError(
            f"data.{name}={values} should be one number, or a list of one for each of the "
            f"{channels} channels"
        )
    return tuple(float(v) for v in listed) * (channels // len(listed))


def as_size(value: Any) -> tuple[int, int]:
    """Height and width in pixels, from a pair or from one number for both."""
    size = tuple(value) if isinstance(value, list) else (value, value)
    if len(size) != 2 or not all(type(n) is int and n > 0 for n in size):
        raise ConfigError(
            f"data.image_size={value} should be a number of pixels, or two: height, width"
        )
    return size
