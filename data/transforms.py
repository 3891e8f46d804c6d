"""Applies transforms of ``torchvision.transforms.v2`` by name to single training samples."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import ConfigError
from core.instantiate import instantiate
from data.augment import PerImage
from data.images import try_augmentation
from data.splits import Batch, StreamedSplit, TensorSplit


class Transformed(StreamedSplit):
    """Applies ``transforms`` to each training sample of ``split``; evaluation is unchanged.

    They draw from torch's global generator, which the loader seeds by run, epoch and index.
    """

    def __init__(self, split: Any, transforms: Sequence[nn.Module]) -> None:
        self.split, self.transforms = split, transforms

    def __len__(self) -> int:
        return len(self.split)

    @property
    def labels(self) -> Tensor | None:
        return getattr(self.split, "labels", None)

    def sample(self, index: int, generator: torch.Generator | None) -> Batch:
        is_streamed = isinstance(self.split, StreamedSplit)
        image, *rest = self.split.sample(index, generator) if is_streamed else self.split[index]
        if generator is not None:
            for transform in self.transforms:
                image = transform(image)
        return image, *rest

    def take(self, indices: Tensor) -> "Transformed":
        return Transformed(self.split.take(indices), self.transforms)

    def identity(self) -> tuple[Tensor, ...]:
        return self.split.identity()


def transformed(split: Any, named: Any, kind: str) -> Transformed:
    """The training split with transforms, each checked on its first sample.

    Args:
        named: names, or mappings of ``name`` and arguments of the class.
        kind: kind of the data's spec.

    Raises:
        ConfigError: if there is no such transform, it rejects its arguments, it does not return a
            uint8 image of the same size, or the data are not images.
    """
    if kind != "image" or not isinstance(split, TensorSplit | StreamedSplit):
        raise ConfigError("data.transforms are for images; leave them out")
    transforms = []
    for i, entry in enumerate(named if isinstance(named, list) else [named]):
        settings = dict(entry) if isinstance(entry, dict) else {"name": entry}
        target = f"torchvision.transforms.v2.{settings.pop('name', None)}"
        transforms.append(instantiate({"_target_": target, **settings}, f"data.transforms[{i}]"))
    image, *targets = split[0]
    if any(torch.as_tensor(target).ndim > 1 for target in targets):
        raise ConfigError(
            "data.transforms would move images but not their masks: use data.transforms=[]"
        )
    for transform in transforms:
        try_augmentation(PerImage(transform), image, "data.transforms")
    return Transformed(split, transforms)
