"""Means of metrics over many batches, read back from the device only when asked for."""

import torch
from torch import Tensor

from core.collectives import gather
from core.ranks import Ranks
from objectives.base import Sums

MeterState = dict[str, tuple[float, int]]  # name -> (sum over samples, number of samples)


class Meter:
    """Keeps ``Sums`` as they come; adds them up, in the order they came, at :meth:`means`."""

    def __init__(self) -> None:
        self.pending: dict[str, list[Tensor]] = {}
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def add(self, sums: Sums) -> None:
        for name, (value, count) in sums.items():
            # a copy: it may be a parameter, which the update will change
            self.pending.setdefault(name, []).append(value.detach().clone())
            self.counts[name] = self.counts.get(name, 0) + count

    def is_empty(self) -> bool:
        return not self.counts

    def means(self) -> dict[str, float]:
        """Mean of every metric over all processes; one transfer from the device.

        A process that has seen no sample takes part with nothing.
        """
        self.read()
        own = {name: (value, self.counts[name]) for name, value in self.sums.items()}
        parts = gather(own)
        names = dict.fromkeys(name for part in parts for name in part)
        means = {}
        for name in names:
            values, counts = zip(*(part[name] for part in parts if name in part), strict=True)
            means[name] = sum(values) / sum(counts)
        return means

    def read(self) -> None:
        """Add up what has come since the last time."""
        if not self.pending:
            return
        flat = torch.stack([v.float() for values in self.pending.values() for v in values])
        values = iter(flat.tolist())
        for name, parts in self.pending.items():
            for _ in parts:
                self.sums[name] = self.sums.get(name, 0.0) + next(values)
        self.pending.clear()

    def state(self) -> MeterState:
        """What this process has summed up."""
        self.read()
        return {name: (value, self.counts[name]) for name, value in self.sums.items()}

    def load_state(self, parts: list[MeterState]) -> None:
        """Begin with the sum of ``parts``."""
        self.reset()
        for part in parts:
            for name, (value, count) in part.items():
                self.sums[name] = self.sums.get(name, 0.0) + float(value)
                self.counts[name] = self.counts.get(name, 0) + count

    def reset(self) -> None:
        self.pending.clear()
        self.sums.clear()
        self.counts.clear()


def own_share(meters: list[MeterState], ranks: Ranks) -> list[MeterState]:
    """What this process goes on with of what each process had summed up.

    Its own part; if there were more or fewer processes, rank 0 takes all of them.
    """
    if len(meters) == ranks.world_size:
        return [meters[ranks.rank]]
    if ranks.is_main:
        return meters
    return [dict.fromkeys(meter, (0.0, 0)) for meter in meters]  # the same names everywhere
