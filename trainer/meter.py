"""Means of metrics over many batches, summed on the device and read back only when asked for."""

import torch
from torch import Tensor

from trainer.distributed import gather
from trainer.objectives.base import Sums


class Meter:
    """Adds up ``Sums`` without reading anything back until :meth:`means`."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, sums: Sums) -> None:
        for name, (value, count) in sums.items():
            if name in self.sums:
                self.sums[name] += value
                self.counts[name] += count
            else:
                self.sums[name] = value.to(torch.float32, copy=True)
                self.counts[name] = count

    def means(self) -> dict[str, float]:
        """Mean of every metric over all processes; one transfer from the device.

        A process that has seen no sample takes part with nothing.
        """
        sums = torch.stack(list(self.sums.values())).tolist() if self.sums else []
        own = {
            name: (value, self.counts[name]) for name, value in zip(self.sums, sums, strict=True)
        }
        parts = gather(own)
        names = dict.fromkeys(name for part in parts for name in part)
        means = {}
        for name in names:
            values, counts = zip(*(part[name] for part in parts if name in part), strict=True)
            means[name] = sum(values) / sum(counts)
        return means

    def reset(self) -> None:
        self.sums.clear()
        self.counts.clear()
