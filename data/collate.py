"""Collate functions, which turn a list of samples into a batch."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from core.errors import ConfigError


def stacked(name: str, samples: list[Any]) -> Any:
    """torch's ``default_collate``, with a clear error for samples of different sizes.

    Args:
        name: name of the data set, for the message.

    Raises:
        ConfigError: if the sizes differ.
    """
    try:
        return default_collate(samples)
    except RuntimeError as error:
        # compare shapes: torch's message differs in a worker, which stacks into shared memory
        for parts in zip(*samples, strict=False):
            shapes = {tuple(getattr(part, "shape", ())) for part in parts}
            if len(shapes) > 1:
                one, other, *_ = sorted(shapes)
                raise ConfigError(
                    f"data={name}: samples of shapes {one} and {other} cannot be stacked into a "
                    "batch: set Splits(collate=...) or data.collate_fn to a function that can "
                    "batch them, such as data.collate.Pad"
                ) from error
        raise


class Pad:
    """Stack samples of different sizes, padded at the end of each dimension with ``value``.

    Each dimension is padded to the largest in the batch. A model must not depend on that size if
    results should be the same for any number of processes.
    """

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def __call__(self, samples: list[Any]) -> tuple[Tensor, ...]:
        return tuple(map(self.stacked, zip(*samples, strict=True)))

    def stacked(self, values: Any) -> Tensor:
        tensors = [torch.as_tensor(value) for value in values]
        size = [max(lengths) for lengths in zip(*(t.shape for t in tensors), strict=True)]
        return torch.stack([self.padded(tensor, size) for tensor in tensors])

    def padded(self, tensor: Tensor, size: list[int]) -> Tensor:
        missing = [target - length for target, length in zip(size, tensor.shape, strict=True)]
        ends = [length for after in reversed(missing) for length in (0, after)]
        return F.pad(tensor, ends, value=self.value)
