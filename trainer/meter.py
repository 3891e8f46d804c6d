"""Means of metrics over many batches, summed on the device and read back only when asked for."""

import torch
from torch import Tensor

from trainer.distributed import sum_over_ranks
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
        """Mean of every metric over all processes; one transfer from the device."""
        if not self.sums:
            return {}
        sums = torch.stack(list(self.sums.values())).double()
        counts = torch.tensor(list(self.counts.values()), dtype=torch.double, device=sums.device)
        totals = sum_over_ranks(torch.stack([sums, counts]))
        return dict(zip(self.sums, (totals[0] / totals[1]).tolist(), strict=True))

    def reset(self) -> None:
        self.sums.clear()
        self.counts.clear()
