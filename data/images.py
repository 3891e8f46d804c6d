"""Prepares image batches on the device: uint8 images are augmented, then normalized."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from core.errors import ConfigError, reason
from core.rng import preserve_rng_state
from data.augment import Geometric, PerImage
from data.draws import BatchDraws
from data.splits import (
    Batch,
    ImageSpec,
    IterableSplit,
    Quantities,
    Splits,
    StreamedSplit,
    TensorSplit,
    indexed,
)

Augment = Callable[[Tensor, BatchDraws], Tensor]

# how common_background decides
NUM_SAMPLES = 64  # images inspected
SAME = 0.1  # fraction of the black-to-white range within which two borders count as alike
SHARE = 0.9  # share of the images that must have alike borders
OPPOSITE = 0.5  # fraction of the range: an image this far off means that both polarities occur


class PrepareImages:
    """uint8 ``(N, C, H, W)`` -> float, same shape: augmented, then ``(x / 255 - mean) / std``.

    Augmentations map uint8 images to uint8 images of the same size, with separate draws per sample.

    Args:
        has_masks: the first target is a mask ``(N, H, W)``, which moves with its image.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        augment: Sequence[Augment],
        has_masks: bool = False,
    ) -> None:
        self.augment = tuple(augment)
        self.has_masks = has_masks
        self.scale, self.shift = scale_and_shift(mean, std)

    def __call__(self, batch: Batch, draws: BatchDraws | None) -> Batch:
        images, *rest = batch
        if draws is not None:
            for augment in self.augment:
                if self.has_masks and isinstance(augment, Geometric | PerImage):
                    images, rest[0] = augment.together(images, rest[0], draws)
                else:
                    images = augment(images, draws)
        self.scale, self.shift = self.scale.to(images.device), self.shift.to(images.device)
        # convert first: arithmetic on mixed types is several times slower
        return images.to(self.scale.dtype).mul_(self.scale).add_(self.shift), *rest


class Views:
    """Several augmented views of every training image: ``(view 1, view 2, ..., targets)``.

    Each view has its own draws. Evaluation gets one view, not augmented.

    Raises:
        ConfigError: if the data are not images, or have masks, which would fit one view only.
    """

    def __init__(self, prepare: Any, count: Any) -> None:
        if not isinstance(prepare, PrepareImages) or prepare.has_masks:
            raise ConfigError(f"data.views={count} is for images without masks: leave it at null")
        if type(count) is not int or count < 1 or not prepare.augment:
            raise ConfigError(
                f"data.views={count} should be an integer, 1 or more, and needs a data.augment "
                "that makes the views differ"
            )
        self.prepare, self.count = prepare, count

    def __call__(self, batch: Batch, draws: BatchDraws | None) -> Batch:
        if draws is None:
            return self.prepare(batch, None)
        views = [self.prepare(batch, draws) for _ in range(self.count)]
        return (*(images for images, *_ in views), *views[0][1:])


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
    """Data set of uint8 images ``(N, C, H, W)`` with their targets.

    Targets are int64 classes ``(N,)``; uint8 labels ``(N, classes)`` of 0 and 1 (multi-label);
    uint8 masks ``(N, H, W)``, ``UNLABELLED`` where a pixel has no class; or float32
    ``(N, quantities)``.

    Args:
        class_names: empty if there are ``quantities``.
        mean, std: one number for all channels, or a list with one per channel.
        augment: list of augmentations or torchvision transforms.

    Raises:
        ConfigError: if the images are not such tensors; ``mean`` or ``std`` has the wrong number of
            values or one out of range; or an augmentation does not suit the data.
    """
    train = indexed(train, "train")
    image, *targets = train[0]
    if not isinstance(image, Tensor) or image.dtype != torch.uint8 or image.ndim != 3:
        raise ConfigError(
            f"data={name}: images should be uint8 of shape (channels, height, width), as before "
            f"ToTensor or normalization; got {described(image)}"
        )
    channels, height, width = image.shape
    means, stds = per_channel(mean, channels, "mean"), per_channel(std, channels, "std")
    if not 0 < min(stds) <= max(stds) <= 1 or not 0 <= min(means) <= max(means) <= 1:
        raise ConfigError(
            f"data.mean={mean} and data.std={std} should be in [0, 1], data.std above 0: they "
            "refer to pixel values from 0 to 1, not 255"
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
    has_masks = bool(targets) and is_mask(targets[0], image)
    steps = augmentations(augment, image, targets)
    prepare = PrepareImages(means, stds, steps, has_masks)
    return Splits(train, val, test, spec, prepare)


def border_brightness(images: Tensor) -> Tensor:
    """Median of the outermost pixels of uint8 images ``(N, C, H, W)``: ``(N,)`` in [0, 1]."""
    grey = images.float().mean(1) / 255
    rows, columns = grey[:, [0, -1]], grey[:, 1:-1, [0, -1]]
    return torch.cat([rows.flatten(1), columns.flatten(1)], 1).median(1).values


def common_background(split: Any) -> float | None:
    """The border brightness in [0, 1] that a split's grey images share; None if they share none."""
    count = min(NUM_SAMPLES, len(split))
    # an iterable is read no further than needed
    reach = count if isinstance(split, IterableSplit) else len(split)
    images = torch.stack([split[i * reach // count][0] for i in range(count)])
    if images.shape[1] != 1:
        return None
    levels = border_brightness(images)
    middle = levels.median()
    distances = (levels - middle).abs()
    are_alike = (distances < SAME).float().mean() >= SHARE and distances.max() < OPPOSITE
    return middle.item() if are_alike else None


def augmentations(augment: Any, image: Tensor, targets: Sequence[Any]) -> list[Augment]:
    """The augmentations, each checked on the first training sample.

    Raises:
        ConfigError: if ``augment`` is not a list of augmentations, one fails on the image, or one
            could move pixels away from their targets.
    """
    steps = augment or []
    if not isinstance(steps, list | tuple) or not all(callable(step) for step in steps):
        raise ConfigError(
            f"data.augment={augment} should be a list of _target_s of data/augment.py or of "
            "torchvision.transforms.v2"
        )
    shapes = [tuple(torch.as_tensor(target).shape) for target in targets]
    has_masks = bool(targets) and is_mask(targets[0], image)
    left = [shape for shape in shapes[has_masks:] if len(shape) > 1]
    if steps and left:
        raise ConfigError(
            f"data.augment would move the pixels of images but not the targets of shape {left[0]}: "
            "use data.augment=[] (supported targets are classes, numbers and uint8 masks of the "
            "image's size)"
        )
    steps = [PerImage(step) if is_from_torchvision(step) else step for step in steps]
    for step in steps:
        try_augmentation(step, image)
        moves_masks = isinstance(step, Geometric | PerImage)
        if has_masks and not moves_masks and getattr(step, "moves_pixels", True):
            raise ConfigError(
                f"data.augment: {type(step).__name__} does not support masks: derive it from "
                "data.augment.Geometric, or set moves_pixels = False if it moves no pixels"
            )
    return steps


def is_mask(target: Any, image: Tensor) -> bool:
    """Whether ``target`` is uint8 ``(H, W)``, of the size of ``image`` ``(C, H, W)``."""
    is_bytes = isinstance(target, Tensor) and target.dtype == torch.uint8
    return is_bytes and target.shape == image.shape[1:]


def is_from_torchvision(step: Any) -> bool:
    """Whether ``step`` is a torchvision transform or subclass, without importing torchvision."""
    return any(kind.__module__.startswith("torchvision.") for kind in type(step).__mro__)


def try_augmentation(step: Augment, image: Tensor, setting: str = "data.augment") -> None:
    """Try an augmentation on two copies of ``image``, uint8 ``(C, H, W)``.

    Raises:
        ConfigError: if it fails or does not return uint8 images of the same size.
    """
    name = type(step.transform if isinstance(step, PerImage) else step).__name__
    images, draws = torch.stack([image, image]), BatchDraws(0, 0, 0, 2, 0, 2)
    try:
        with preserve_rng_state():
            out = step(images, draws)
    except Exception as error:  # third-party code can raise anything
        raise ConfigError(
            f"{setting}: {name} fails on uint8 images of shape {tuple(image.shape)}: "
            f"{type(error).__name__}: {reason(error)}"
        ) from error
    if not isinstance(out, Tensor) or (out.shape, out.dtype) != (images.shape, images.dtype):
        what = described(out[0] if isinstance(out, Tensor) else out)
        raise ConfigError(
            f"{setting}: {name} turns uint8 images of shape {tuple(image.shape)} into {what}; it "
            "should keep dtype and shape, since images are normalized later"
        )


def described(value: Any) -> str:
    """A tensor's dtype and shape; the type's name of anything else."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{value.dtype} of shape {tuple(value.shape)}".removeprefix("torch.")


def per_channel(values: Any, channels: int, name: str) -> tuple[float, ...]:
    """``values`` as one float per channel; a single number applies to all."""
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
