"""What training measures: means of metrics, read back only when asked for, and its time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from core.collectives import gather
from core.progress import Progress
from core.ranks import Ranks
from objectives.base import Sums
from trainer.distributed.device import synchronize

T = TypeVar("T")
MeterState = dict[str, tuple[float, int]]  # name -> (sum over samples, number of samples)


class Meter:
    """Adds up ``Sums`` on their device, in float64 so that no count of samples is too large."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, sums: Sums) -> None:
        for name, (value, count) in sums.items():
            if name in self.sums:
                self.sums[name] = self.sums[name].to(value.device).add_(value)
            else:
                self.sums[name] = in_double(value)
            self.counts[name] = self.counts.get(name, 0) + count

    def means(self) -> dict[str, float]:
        """Mean of every metric over all processes; one transfer from the device.

        A process that has seen no sample takes part with nothing.
        """
        parts = gather(self.state())
        names = dict.fromkeys(name for part in parts for name in part)
        means = {}
        for name in names:
            values, counts = zip(*(part[name] for part in parts if name in part), strict=True)
            means[name] = sum(values) / sum(counts)
        return means

    def state(self) -> MeterState:
        """The sums of this process, as plain numbers."""
        if not self.sums:
            return {}
        sums = list(self.sums.values())
        values = torch.stack([value.to(sums[0]) for value in sums]).tolist()
        return {
            name: (value, self.counts[name]) for name, value in zip(self.sums, values, strict=True)
        }

    def load_state(self, parts: list[MeterState]) -> None:
        """Begin with the sum of ``parts``."""
        self.reset()
        for part in parts:
            for name, (value, count) in part.items():
                self.add({name: (torch.tensor(value, dtype=torch.float64), count)})

    def reset(self) -> None:
        self.sums.clear()
        self.counts.clear()


class TrainingMetrics:
    """What training measures between two records of it.

    Args:
        log_every_steps: updates that the recorded means are over.
        check: is given the means; raises where one is not finite.
    """

    def __init__(self, log_every_steps: int, check: Callable[[dict[str, float]], None]) -> None:
        self.log_every_steps = log_every_steps
        self.check = check
        self.window = Meter()
        self.since_eval = Meter()
        self.norms: dict[str, Tensor] = {}  # of the last update at which they were measured

    def add(self, sums: Sums) -> None:
        self.window.add(sums)
        self.since_eval.add(losses_of(sums))

    def is_logging_step(self, step: int) -> bool:
        """The first update and every ``log_every_steps``-th, whatever else is due."""
        return step == 1 or step % self.log_every_steps == 0

    def values(self, step: int) -> dict[str, float]:
        """The means of the last ``log_every_steps`` updates, and the norms of this one.

        The first update is recorded by itself, and counts in the means that follow as well, so
        that they are all over the same number of updates.
        """
        means = self.window.means()
        if step % self.log_every_steps == 0:
            self.window.reset()
        self.check(means)
        values = {f"train/{name}": value for name, value in means.items()}
        if self.norms:  # one transfer from the device
            norms = torch.stack([in_double(norm) for norm in self.norms.values()]).tolist()
            values |= dict(zip(self.norms, norms, strict=True))
        return values

    def losses_since_evaluation(self) -> dict[str, float]:
        """Means of the training losses since the last evaluation: at the defaults, the epoch's."""
        means = losses_of(self.since_eval.means())
        self.check(means)
        return {f"train/{name}_since_eval": value for name, value in means.items()}

    def state(self) -> dict[str, list[MeterState]]:
        """The sums of every process."""
        return {
            "window": gather(self.window.state()),
            "since_eval": gather(self.since_eval.state()),
        }

    def load_state(self, state: dict[str, list[MeterState]], ranks: Ranks) -> None:
        """Go on from :meth:`state`, of any number of processes."""
        self.window.load_state(own_share(state["window"], ranks))
        self.since_eval.load_state(own_share(state["since_eval"], ranks))


class Clock:
    """Adds up ``progress.train_seconds`` from the moment it is made.

    Waiting for data, updates and logging are training.
    """

    def __init__(self, progress: Progress, device: torch.device) -> None:
        self.progress = progress
        self.device = device
        self.counted_until = time.perf_counter()

    def count(self) -> None:
        """Count what has passed as training."""
        now = time.perf_counter()
        self.progress.train_seconds += now - self.counted_until
        self.counted_until = now

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Evaluation and checkpoints are not training; what a GPU still has queued is."""
        synchronize(self.device)
        self.count()
        try:
            yield
        finally:
            self.counted_until = time.perf_counter()


def losses_of(metrics: dict[str, T]) -> dict[str, T]:
    return {name: value for name, value in metrics.items() if name.endswith("loss")}


def own_share(meters: list[MeterState], ranks: Ranks) -> list[MeterState]:
    """What this process goes on with of what each process had summed up.

    Its own part; if there were more or fewer processes, rank 0 takes all of them.
    """
    if len(meters) == ranks.world_size:
        return [meters[ranks.rank]]
    if ranks.is_main:
        return meters
    return [dict.fromkeys(meter, (0.0, 0)) for meter in meters]  # the same names everywhere


def in_double(value: Tensor) -> Tensor:
    """A copy in float64; in float32 on Apple's GPUs, which know no other."""
    dtype = torch.float32 if value.device.type == "mps" else torch.float64
    return value.detach().to(dtype, copy=True)
