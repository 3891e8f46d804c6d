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

    def state(self) -> Sums:
        """What this process has summed up."""
        return {name: (value.cpu(), self.counts[name]) for name, value in self.sums.items()}

    def load_state(self, parts: list[Sums], device: torch.device) -> None:
        """Begin with the sum of ``parts``."""
        self.reset()
        for part in parts:
            self.add({name: (value.to(device), count) for name, (value, count) in part.items()})

    def reset(self) -> None:
        self.sums.clear()
        self.counts.clear()
