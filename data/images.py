"""Image batches on the device: uint8 images become augmented, normalized input for a model."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from data.splits import Batch, Draws, ImageSpec, Splits, TensorSplit
from trainer.errors import ConfigError

Augment = Callable[[Tensor, Draws], Tensor]


class PrepareImages:
    """uint8 ``(N, C, H, W)`` -> float, same shape: augmented, then ``(x / 255 - mean) / std``.

    Each augmentation maps uint8 images to uint8 images of the same size, with draws of its own for
    every sample.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], augment: Sequence[Augment]
    ) -> None:
        self.augment = tuple(augment)
        # one multiply-add: x * scale + shift
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
        return torch.addcmul(self.shift, images, self.scale), *rest


def image_splits(
    name: str,
    train: TensorSplit,
    val: TensorSplit,
    test: TensorSplit,
    class_names: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    augment: Sequence[Augment] = (),
    synthetic: bool = False,
) -> Splits:
    """Splits of resident uint8 images ``(N, C, H, W)`` with int64 labels ``(N,)``.

    Raises:
        ConfigError: ``mean`` or ``std`` do not have one positive value per channel.
    """
    channels, height, width = train.tensors[0].shape[1:]
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ConfigError(
            f"data.mean={list(mean)} and data.std={list(std)} need one value for each of the "
            f"{channels} channels of {name}, std above 0"
        )
    spec = ImageSpec(
        name=name,
        in_channels=channels,
        image_size=(height, width),
        class_names=tuple(class_names),
        mean=tuple(mean),
        std=tuple(std),
        synthetic=synthetic,
    )
    return Splits(train, val, test, spec, PrepareImages(mean, std, augment))
