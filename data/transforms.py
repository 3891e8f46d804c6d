"""Transforms of ``torchvision.transforms.v2`` by name, on single training samples."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import ConfigError, reason
from data.draws import kept_global_generators
from data.splits import Batch, StreamedSplit, TensorSplit


class Transformed(StreamedSplit):
    """``split`` with ``transforms`` on each training sample; evaluation sees it as it is.

    They draw from torch's global generator, which the loader starts at the seed, epoch and index.
    """

    def __init__(self, split: Any, transforms: Sequence[nn.Module]) -> None:
        self.split, self.transforms = split, transforms

    def __len__(self) -> int:
        return len(self.split)

    @property
    def labels(self) -> Any:
        is_resident = isinstance(self.split, TensorSplit)
        return self.split.tensors[-1] if is_resident else getattr(self.split, "labels", None)

    def __getitem__(self, index: int) -> Batch:
        return self.split[index]

    def training_sample(self, index: int, generator: torch.Generator) -> Batch:
        streamed = isinstance(self.split, StreamedSplit)
        sample = self.split.training_sample(index, generator) if streamed else self.split[index]
        image, *rest = sample
        for transform in self.transforms:
            image = transform(image)
        return image, *rest

    def take(self, indices: Tensor) -> "Transformed":
        return Transformed(self.split.take(indices), self.transforms)

    def identity(self) -> tuple[Tensor, ...]:
        is_resident = isinstance(self.split, TensorSplit)
        return self.split.tensors if is_resident else self.split.identity()


def transformed(split: Any, named: Any, kind: str) -> Transformed:
    """The training split with transforms, after they were tried on its first sample.

    Args:
        named: names, or mappings of ``name`` and settings of the class.
        kind: of the data.

    Raises:
        ConfigError: there is no such transform, it refuses its settings, or it makes something else
            than a uint8 image of the same size; the data are no images.
    """
    if kind != "image" or not isinstance(split, TensorSplit | StreamedSplit):
        raise ConfigError("data.transforms are for images; leave them out")
    transforms = [build(entry) for entry in (named if isinstance(named, list) else [named])]
    image, *targets = split[0]
    if any(torch.as_tensor(target).ndim > 1 for target in targets):
        raise ConfigError("data.transforms would move images and leave their masks: use []")
    for transform in transforms:
        name = type(transform).__name__
        try:
            with kept_global_generators():
                made = transform(image)
        except Exception as error:  # whatever torchvision raises
            raise ConfigError(
                f"data.transforms: {name} fails on a uint8 image of shape {tuple(image.shape)}: "
                f"{reason(error)}"
            ) from error
        if not isinstance(made, Tensor) or (made.shape, made.dtype) != (image.shape, image.dtype):
            raise ConfigError(
                f"data.transforms: {name} makes something else of a uint8 image of shape "
                f"{tuple(image.shape)}; type and size stay, and the images are normalized later"
            )
    return Transformed(split, transforms)


def build(entry: Any) -> nn.Module:
    """Raises: ConfigError: there is no such transform, or it refuses its settings."""
    settings = dict(entry) if isinstance(entry, dict) else {"name": entry}
    name = settings.pop("name", None)
    from torchvision.transforms import v2  # costs seconds: only for the runs that use it

    kind = getattr(v2, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        nearest = get_close_matches(str(name), dir(v2), n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(
            f"data.transforms: torchvision.transforms.v2 has no {name}{hint} Entries are names, or "
            "{name: RandomAffine, degrees: 10}"
        )
    try:
        return kind(**settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"data.transforms: {name} refused its settings: {reason(error)}"
        ) from error
