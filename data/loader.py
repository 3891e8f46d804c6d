"""Batches of every split for one process, in an order independent of the number of processes.

An update consumes ``batch_size`` samples over all processes. The order of an epoch depends only on
the seed and the epoch. Update ``i`` takes the ``i``-th ``batch_size`` indices, split into
``accumulate_steps`` micro-batches, and each process takes its slice of every micro-batch. Training
drops the last incomplete batch (other samples each epoch); evaluation covers all samples.
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from core.errors import ConfigError
from data.collate import stacked
from data.draws import EPOCH_STREAM, BatchDraws, seeded
from data.sample_reader import SampleReader
from data.splits import Batch, IterableSplit, Mix, Splits, StreamedSplit, TensorSplit


class Loader:
    """Training and evaluation batches of ``splits`` for process ``rank`` of ``world_size``.

    Args:
        batch_size: samples per update over all processes.
        eval_batch_size: samples per process and evaluation step.
        num_workers: worker processes for each split that is not resident.
        accumulate_steps: micro-batches per update.

    Raises:
        ConfigError: if ``batch_size`` exceeds the training split, or does not divide evenly into
            micro-batches and processes.
    """

    def __init__(
        self,
        splits: Splits,
        device: torch.device,
        seed: int,
        rank: int,
        world_size: int,
        accumulate_steps: int,
        batch_size: int,
        eval_batch_size: int,
        num_workers: int,
    ) -> None:
        check_batch_size(batch_size, world_size, accumulate_steps, len(splits.train))
        self.spec = splits.spec
        self.notes = splits.notes
        self.fingerprint = fingerprint(splits)
        self.prepare = splits.prepare
        name = getattr(splits.spec, "name", "of its own")
        self.collate = splits.collate or partial(stacked, name)
        self.num_views = getattr(splits.prepare, "count", 1)  # per training image
        self.splits = {
            name: split.to(device) if isinstance(split, TensorSplit) else split
            for name in ("train", "train_eval", "val", "test")
            if (split := getattr(splits, name)) is not None and len(split)
        }
        self.device = device
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.accumulate_steps = accumulate_steps
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.steps_per_epoch = len(splits.train) // batch_size
        self.readers: dict[tuple[str, bool], SampleReader] = {}  # key: split, is training
        self.order_digests = [hashlib.blake2b(digest_size=16)]  # before each epoch

    def train(self, epoch: int, start: int = 0, mix: Mix | None = None) -> Iterator[list[Batch]]:
        """Yield the micro-batches of each update of ``epoch``, from update ``start`` on.

        Args:
            mix: mixes each sample with the one before it in the update; the first is mixed with the
                last. A micro-batch is prepared with the sample before its first, so the result does
                not depend on how the update is split into micro-batches and processes.
        """
        micro = self.batch_size // self.accumulate_steps
        share = micro // self.world_size
        # this process's slices of an update, each with the preceding sample if mixing
        parts = [
            (low - (mix is not None), low + share)
            for low in range(self.rank * share, self.batch_size, micro)
        ]
        rows = [torch.arange(low, high) % self.batch_size for low, high in parts]
        updates = self.epoch_order(epoch).view(-1, self.batch_size)[start:]
        raw = self.read("train", (update[part] for update in updates for part in rows), epoch)
        for step, order in enumerate(updates, start):
            update = []
            for (low, high), part in zip(parts, rows, strict=True):
                draws = BatchDraws(
                    self.seed, epoch, step, self.batch_size, low, high, samples=order[part]
                )
                batch = next(raw)
                draws.seed_for_these_samples()
                batch = self.prepare(batch, draws)
                update.append(batch if mix is None else mix(batch, draws))
            yield update

    def evaluate(self, name: str, limit: int | None = None) -> Iterator[Batch]:
        """Batches of this process's share of :meth:`evaluated`; no sample is evaluated twice."""
        low, high = self.share(name, limit)
        size = min(self.eval_batch_size, len(self.splits[name]))
        indices = self.evaluated(name, limit)[low:high]
        yield from self.prepared(name, indices.split(size) if high > low else ())

    def evaluated(self, name: str, limit: int | None = None) -> Tensor:
        """Indices of the samples to evaluate, over all processes.

        Args:
            limit: batches per process; None: all. A limited evaluation takes samples spread evenly
                over the split, since many splits are sorted by class.
        """
        count = total = len(self.splits[name])
        if limit is not None:
            count = min(total, limit * self.eval_batch_size * self.world_size)
        return torch.arange(count) * total // count

    def share(self, name: str, limit: int | None = None) -> tuple[int, int]:
        """Start and exclusive end of this process's part of :meth:`evaluated`."""
        count = len(self.evaluated(name, limit))
        return count * self.rank // self.world_size, count * (self.rank + 1) // self.world_size

    def spread_over_training(self, limit: int) -> Iterator[Batch]:
        """This process's shares of up to ``limit`` training batches, prepared as for evaluation.

        The batches are spread evenly over the split; a last incomplete one is dropped.
        """
        total, share = len(self.splits["train"]), self.batch_size // self.world_size
        count = min(total // self.batch_size, limit) * self.batch_size
        batches = (torch.arange(count) * total // count).view(-1, self.batch_size)
        low = self.rank * share
        yield from self.prepared("train", (batch[low : low + share] for batch in batches))

    def prepared(self, name: str, batches: Iterable[Tensor]) -> Iterator[Batch]:
        """Batches of a split at these indices, prepared as for evaluation."""
        for batch in self.read(name, batches):
            yield self.prepare(batch, None)

    def read(
        self, name: str, batches: Iterable[Tensor], epoch: int | None = None
    ) -> Iterator[Batch]:
        """Raw batches of a split on the device, in the order of ``batches``.

        Args:
            epoch: training epoch; None for evaluation.
        """
        split = self.splits[name]
        if isinstance(split, TensorSplit):
            for indices in batches:
                yield split.batch(indices)
            return
        key = (name, epoch is not None)
        if key not in self.readers:
            self.readers[key] = SampleReader(
                split, self.seed, self.num_workers, self.device, self.collate
            )
        yield from self.readers[key].read(batches, epoch)

    def close(self) -> None:
        """End the worker processes."""
        while self.readers:
            self.readers.popitem()[1].close()

    def epoch_order(self, epoch: int) -> Tensor:
        """The sample indices of an epoch's updates; depends only on the seed and the epoch."""
        generator = seeded(self.seed, EPOCH_STREAM, epoch)
        split = self.splits["train"]
        if isinstance(split, TensorSplit | IterableSplit):
            order = split.epoch_order(generator)
        else:
            order = torch.randperm(len(split), generator=generator)
        return order[: self.steps_per_epoch * self.batch_size]

    def order_hash(self, num_updates: int) -> str:
        """Hash of the sample order of the first ``num_updates`` updates."""
        epochs, steps = divmod(num_updates, self.steps_per_epoch)
        while len(self.order_digests) <= epochs:
            digest = self.order_digests[-1].copy()
            digest.update(self.epoch_order(len(self.order_digests) - 1).numpy().tobytes())
            self.order_digests.append(digest)
        digest = self.order_digests[epochs].copy()
        if steps:
            order = self.epoch_order(epochs)[: steps * self.batch_size]
            digest.update(order.numpy().tobytes())
        return digest.hexdigest()

    def state(self, num_updates: int) -> dict[str, Any]:
        """The data part of a checkpoint after ``num_updates`` updates."""
        return {
            "order_hash": self.order_hash(num_updates),
            "fingerprint": self.fingerprint,
            "batch_size": self.batch_size,
            "steps_per_epoch": self.steps_per_epoch,
        }

    def continue_order(self, recorded: str, num_updates: int) -> None:
        """Resume after a checkpoint whose order hash is ``recorded``.

        If its order was another one, for example with another batch size, its hash becomes part of
        all later hashes.
        """
        if self.order_hash(num_updates) != recorded:
            self.order_digests = [hashlib.blake2b(recorded.encode(), digest_size=16)]

    def sizes(self) -> dict[str, int]:
        """Number of samples of each split; leaves out ``train_eval``, a subset of ``train``."""
        return {name: len(split) for name, split in self.splits.items() if name != "train_eval"}


def fingerprint(splits: Splits) -> str:
    """Checksums of all tensors of resident splits, and of the ``identity`` of streamed ones."""
    checksums = []
    for split in (splits.train, splits.val, splits.test):
        tensors = split.identity() if isinstance(split, TensorSplit | StreamedSplit) else ()
        sums = [
            zlib.crc32(t.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
            for t in tensors
        ]
        checksums.append((0 if split is None else len(split), sums))
    return repr(checksums)


def check_batch_size(batch_size: int, world_size: int, accumulate_steps: int, samples: int) -> None:
    if batch_size > samples:
        raise ConfigError(
            f"data.batch_size={batch_size} should be between 1 and the {samples} training samples"
        )
    if batch_size % (world_size * accumulate_steps):
        raise ConfigError(
            f"data.batch_size={batch_size} is not divisible by {world_size} process(es) x "
            f"trainer.accumulate_steps={accumulate_steps}: make it a multiple of "
            f"{world_size * accumulate_steps}"
        )
