"""Batches of samples of different sizes."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class Pad:
    """Every part of the samples as one tensor, filled up at the ends with ``value``.

    Each dimension becomes the largest of the batch: how wide a batch is hangs on its samples, so a
    model should not, where several processes are to give what one gives.
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
        missing = [whole - own for whole, own in zip(size, tensor.shape, strict=True)]
        ends = [length for own in reversed(missing) for length in (0, own)]
        return F.pad(tensor, ends, value=self.value)
