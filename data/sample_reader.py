"""Reads samples one by one, in worker processes that live as long as the loader."""

import atexit
import signal
from collections.abc import Callable, Iterable, Iterator
from traceback import clear_frames
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from core.errors import ConfigError
from core.parent import end_with_parent
from data.draws import (
    EVALUATION_STREAM,
    SAMPLE_STREAM,
    WORKER_STREAM,
    seed_global_generators,
    seeded,
)
from data.splits import Batch, IterableSplit, StreamedSplit

# sent by a terminal or a cluster to every process of a job
GROUP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")

Item = tuple[int | None, int]  # epoch (None: evaluation), index of the sample


class SampleReader:
    """Reads batches of a split that is not resident; every pass uses the same worker processes.

    Before each sample, the global generators of Python, numpy and torch are seeded: in training by
    the run's seed, the epoch and the sample's index, in evaluation by the index alone.
    """

    def __init__(
        self,
        split: Any,
        seed: int,
        num_workers: int,
        device: torch.device,
        collate: Callable[[list[Any]], Any],
    ) -> None:
        self.device = device
        self.items = BatchItems()
        self.loader = DataLoader(
            SeededSamples(split, seed),
            batch_sampler=self.items,
            collate_fn=collate,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=begin_worker,
            pin_memory=device.type == "cuda",
            generator=seeded(seed, WORKER_STREAM),
        )
        # at exit multiprocessing joins its processes, and these ignore its SIGTERM
        atexit.register(self.close)

    def read(self, batches: Iterable[Tensor], epoch: int | None = None) -> Iterator[Batch]:
        """Yield batches of the samples at these indices, in this order, on the device.

        Args:
            epoch: training epoch; None for evaluation.

        Raises:
            ConfigError: if a sample cannot be read, or is not a tuple of tensors and numbers.
        """
        self.items.batches, self.items.epoch = batches, epoch
        try:
            for batch in self.loader:
                yield tuple(tensor.to(self.device, non_blocking=True) for tensor in checked(batch))
        except Exception as error:
            # frames in its traceback would keep the workers alive after `close`
            clear_frames(error.__traceback__)
            if isinstance(error, ConfigError):
                # a worker's error carries the worker's traceback, with the message in the last line
                message = str(error).strip().rpartition("ConfigError: ")[2]
                raise ConfigError(message) from None
            raise

    def close(self) -> None:
        """End the worker processes."""
        atexit.unregister(self.close)
        del self.loader


def begin_worker(worker_id: int) -> None:
    """Ignore job signals: the parent ends its workers once it has saved the run's state.

    A worker also ends when its parent is killed; torch's watchdog needs 5 s or fails to notice.
    """
    end_with_parent(saves=False)
    for name in GROUP_SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


class BatchItems:
    """Batch sampler: the items that the workers read in the current pass."""

    def __init__(self) -> None:
        self.batches: Iterable[Tensor] = ()
        self.epoch: int | None = None

    def __iter__(self) -> Iterator[list[Item]]:
        for indices in self.batches:
            yield [(self.epoch, index) for index in indices.tolist()]


class SeededSamples(Dataset[Any]):
    """The samples of ``split``, with the global generators seeded before each."""

    def __init__(self, split: Any, seed: int) -> None:
        self.split = split
        self.seed = seed

    def __getitems__(self, items: list[Item]) -> list[Any]:
        """Read a batch; torch calls this in place of ``__getitem__``."""
        if isinstance(self.split, IterableSplit):  # mixing puts the last sample first
            samples = {item: self.sample(*item) for item in sorted(items, key=lambda item: item[1])}
            return [samples[item] for item in items]
        return [self.sample(epoch, index) for epoch, index in items]

    def sample(self, epoch: int | None, index: int) -> Any:
        if isinstance(self.split, IterableSplit):
            return self.split.read(index, epoch, lambda place: self.seed_for(epoch, place))
        self.seed_for(epoch, index)
        if isinstance(self.split, StreamedSplit) and epoch is not None:
            return self.split.sample(index, seeded(self.seed, SAMPLE_STREAM, epoch, index))
        return self.split[index]

    def seed_for(self, epoch: int | None, index: int) -> None:
        if epoch is None:
            seed_global_generators(0, EVALUATION_STREAM, index)
        else:
            seed_global_generators(self.seed, SAMPLE_STREAM, epoch, index)


def checked(batch: Any) -> list[Tensor] | tuple[Tensor, ...]:
    """Raises: ConfigError: if the samples are not tuples of tensors and numbers."""
    if isinstance(batch, list | tuple) and all(isinstance(part, Tensor) for part in batch):
        return batch
    raise ConfigError(
        "a sample of the data set should be a tuple of tensors and numbers, such as (image, label)"
    )
