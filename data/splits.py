"""What a data set hands to the program: its splits, their looks, how a batch is prepared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

Batch = tuple[Tensor, ...]


class Draws(Protocol):
    """Random numbers for one batch, one row a sample; the same whatever the number of processes."""

    def uniform(self, *shape: int) -> Tensor: ...


Prepare = Callable[[Batch, Draws | None], Batch]


class TensorSplit:
    """A split that fits in memory: tensors whose first dimension counts the samples.

    It is moved to the training device once; a batch is one gather per tensor.
    """

    def __init__(self, *tensors: Tensor) -> None:
        lengths = {len(tensor) for tensor in tensors}
        if len(lengths) != 1:
            raise ValueError(f"tensors of one split differ in length: {sorted(lengths)}")
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def to(self, device: torch.device) -> "TensorSplit":
        return TensorSplit(*(tensor.to(device) for tensor in self.tensors))

    def gather(self, indices: Tensor) -> Batch:
        return tuple(tensor.index_select(0, indices) for tensor in self.tensors)


@dataclass(frozen=True)
class ImageSpec:
    """What models, objectives and predictions need to know of an image data set.

    Model settings that are null in the config are filled from the attribute of the same name.
    """

    name: str
    in_channels: int
    image_size: tuple[int, int]  # height, width in pixels
    class_names: tuple[str, ...]
    mean: tuple[float, ...]  # per channel, of images in [0, 1]
    std: tuple[float, ...]
    synthetic: bool = False  # generated: every record says so

    kind: ClassVar[str] = "image"

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def example(self, count: int) -> Tensor:
        """Zeros in the shape of a prepared batch, to try a model on."""
        return torch.zeros(count, self.in_channels, *self.image_size)


@dataclass
class Splits:
    """A data set: any of the splits is a ``TensorSplit`` or a map-style torch ``Dataset``.

    Attributes:
        spec: what models and objectives need to know.
        prepare: turns a raw batch, already on the device, into the model's input; gets random
            draws for training batches and None for evaluation.
    """

    train: Any
    val: Any
    test: Any
    spec: Any
    prepare: Prepare = field(default=lambda batch, draws: batch)

    def sizes(self) -> dict[str, int]:
        return {name: len(getattr(self, name)) for name in ("train", "val", "test")}


def stratified_split(labels: Tensor, fractions: Sequence[float], seed: int) -> list[Tensor]:
    """Disjoint index sets with every class in the same proportions.

    Args:
        labels: ``(N,)`` class of each sample.
        fractions: share of each part; they sum to 1.

    Returns:
        One sorted index tensor per fraction.
    """
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[Tensor]] = [[] for _ in fractions]
    for label in labels.unique():
        indices = (labels == label).nonzero().squeeze(1)
        indices = indices[torch.randperm(len(indices), generator=generator)]
        bounds = [round(sum(fractions[:i]) * len(indices)) for i in range(len(fractions) + 1)]
        for part, low, high in zip(parts, bounds, bounds[1:], strict=False):
            part.append(indices[low:high])
    return [torch.cat(part).sort().values for part in parts]
