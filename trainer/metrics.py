"""Training metrics and training time. Metrics are read back from the device only on request."""

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
    """Accumulates ``Sums`` on their device, in float64 to stay accurate over many samples."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, sums: Sums) -> None:
        for name, (value, count) in sums.items():
            if name in self.sums:
                total = self.sums[name].to(value.device, double_dtype(value.device))
                self.sums[name] = total.add_(value.detach())
            else:
                self.sums[name] = in_double(value)
            self.counts[name] = self.counts.get(name, 0) + count

    def means(self) -> dict[str, float]:
        """Mean of every metric over all processes, with a single device-to-host copy.

        Processes without samples contribute nothing, but must call this, too.
        """
        parts = gather(self.state())
        names = dict.fromkeys(name for part in parts for name in part)
        means = {}
        for name in names:
            values, counts = zip(*(part[name] for part in parts if name in part), strict=True)
            means[name] = sum(values) / sum(counts)
        return means

    def state(self) -> MeterState:
        """This process's sums as Python numbers."""
        if not self.sums:
            return {}
        sums = list(self.sums.values())
        values = torch.stack([value.to(sums[0]) for value in sums]).tolist()
        return {
            name: (value, self.counts[name]) for name, value in zip(self.sums, values, strict=True)
        }

    def load_state(self, parts: list[MeterState]) -> None:
        """Replace the sums by the total of ``parts``."""
        self.reset()
        for part in parts:
            for name, (value, count) in part.items():
                self.add({name: (torch.tensor(value, dtype=torch.float64), count)})

    def reset(self) -> None:
        self.sums.clear()
        self.counts.clear()


class TrainingMetrics:
    """Training metrics, averaged over logging windows and since the last evaluation.

    Args:
        log_every_steps: number of updates each logged mean is taken over.
        check: called with the means; raises if one is not finite.
    """

    def __init__(self, log_every_steps: int, check: Callable[[dict[str, float]], None]) -> None:
        self.log_every_steps = log_every_steps
        self.check = check
        self.window = Meter()
        self.since_eval = Meter()
        self.norms: dict[str, Tensor] = {}  # of the last logging step

    def add(self, sums: Sums) -> None:
        self.window.add(sums)
        self.since_eval.add(losses_of(sums))

    def is_logging_step(self, step: int) -> bool:
        """Whether to log: at the first update and at every multiple of ``log_every_steps``."""
        return step == 1 or step % self.log_every_steps == 0

    def values(self, step: int) -> dict[str, float]:
        """Means over the last ``log_every_steps`` updates, and norms of the current one.

        The first update is logged alone and is also part of the next means, so that all later
        means cover the same number of updates.
        """
        means = self.window.means()
        if step % self.log_every_steps == 0:
            self.window.reset()
        self.check(means)
        values = {f"train/{name}": value for name, value in means.items()}
        if self.norms:  # one device-to-host copy
            norms = torch.stack([in_double(norm) for norm in self.norms.values()]).tolist()
            values |= dict(zip(self.norms, norms, strict=True))
        return values

    def losses_since_evaluation(self) -> dict[str, float]:
        """Mean training losses since the last evaluation (with the defaults, over the epoch)."""
        means = losses_of(self.since_eval.means())
        self.check(means)
        return {f"train/{name}_since_eval": value for name, value in means.items()}

    def state(self) -> dict[str, list[MeterState]]:
        """Sums of all processes, for the checkpoint."""
        return {
            "window": gather(self.window.state()),
            "since_eval": gather(self.since_eval.state()),
        }

    def load_state(self, state: dict[str, list[MeterState]], ranks: Ranks) -> None:
        """Restore :meth:`state`, which may be of another number of processes."""
        self.window.load_state(meters_of_rank(state["window"], ranks))
        self.since_eval.load_state(meters_of_rank(state["since_eval"], ranks))


class Clock:
    """Counts ``progress.train_seconds``, starting when it is created.

    Training time includes updates, logging and waiting for data.
    """

    def __init__(self, progress: Progress, device: torch.device) -> None:
        self.progress = progress
        self.device = device
        self.counted_until = time.perf_counter()

    def count(self) -> None:
        """Add the time elapsed since the last count."""
        now = time.perf_counter()
        self.progress.train_seconds += now - self.counted_until
        self.counted_until = now

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the block, such as an evaluation; work already queued on a GPU still counts."""
        synchronize(self.device)
        self.count()
        try:
            yield
        finally:
            self.counted_until = time.perf_counter()


def losses_of(metrics: dict[str, T]) -> dict[str, T]:
    return {name: value for name, value in metrics.items() if name.endswith("loss")}


def meters_of_rank(meters: list[MeterState], ranks: Ranks) -> list[MeterState]:
    """The saved meters that this process resumes with.

    Its own one; if the number of processes has changed, rank 0 takes all of them.
    """
    if len(meters) == ranks.world_size:
        return [meters[ranks.rank]]
    if ranks.is_main:
        return meters
    return [dict.fromkeys(meter, (0.0, 0)) for meter in meters]  # the same names everywhere


def in_double(value: Tensor) -> Tensor:
    """A detached copy in float64, or in the widest type of its device."""
    return value.detach().to(double_dtype(value.device), copy=True)


def double_dtype(device: torch.device) -> torch.dtype:
    """float64; float32 on Apple's GPUs, which do not support float64."""
    return torch.float32 if device.type == "mps" else torch.float64
