"""Batches of every split for one process: the same samples in the same order whatever their number.

An update consumes ``batch_size`` samples over all processes. The order of an epoch depends on the
seed and the epoch alone; update ``i`` takes the ``i``-th run of ``batch_size`` indices, cut into
``accumulate_steps`` micro-batches, and each process takes its slice of every micro-batch. A last,
incomplete batch is left out of training (another one each epoch) and never out of evaluation.
"""

import hashlib
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from core.errors import ConfigError
from data.draws import EPOCH_STREAM, BatchDraws, DrawsTogether, seeded
from data.splits import Batch, Mix, Splits, StreamedSplit, TensorSplit

UPDATES_HASHED_AT_ONCE = 256
BYTES_AT_ONCE = 1 << 21  # of samples: many small batches take less time together


class Loader:
    """Training and evaluation batches of ``splits`` for process ``rank`` of ``world_size``.

    Args:
        batch_size: samples per update over all processes.
        eval_batch_size: samples per process and evaluation step.
        num_workers: worker processes for splits that are streamed rather than resident.
        accumulate_steps: micro-batches per update.

    Raises:
        ConfigError: the sizes do not divide, or a split is empty.
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
        self.fingerprint = fingerprint(splits)
        self.prepare = splits.prepare
        self.splits = {
            name: split.to(device) if isinstance(split, TensorSplit) else split
            for name in ("train", "val", "test")
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
        self.hashed = ""
        self.unhashed: list[Tensor] = []

    @property
    def order_hash(self) -> str:
        """Of the samples of all updates so far; being a chain, it goes on after an interruption."""
        self.hash_orders()
        return self.hashed

    @order_hash.setter
    def order_hash(self, value: str) -> None:
        self.hashed = value
        self.unhashed.clear()

    def hash_orders(self) -> None:
        """For many updates at once: one by one, between them, it costs ten times as much."""
        for indices in self.unhashed:
            content = self.hashed.encode() + indices.numpy().tobytes()
            self.hashed = hashlib.blake2b(content, digest_size=16).hexdigest()
        self.unhashed.clear()

    def train(self, epoch: int, start: int = 0, mix: Mix | None = None) -> Iterator[list[Batch]]:
        """The micro-batches of each update of ``epoch``, from its update ``start`` on.

        ``order_hash`` follows the samples of the updates yielded so far.

        Args:
            mix: what mixes each sample with its neighbour. The update is a ring, and a micro-batch
                is prepared with one sample more, the neighbour of its first: so nothing depends on
                how many micro-batches and processes the update is cut into.
        """
        split = self.splits["train"]
        if isinstance(split, StreamedSplit):
            split = split.augmented(self.seed, epoch)
        order = self.epoch_order(epoch)
        micro = self.batch_size // self.accumulate_steps
        share = micro // self.world_size
        # of this process, in an update
        parts = [
            (low - (mix is not None), low + share)
            for low in range(self.rank * share, self.batch_size, micro)
        ]
        rows = [torch.arange(low, high) % self.batch_size for low, high in parts]
        updates = order[: self.steps_per_epoch * self.batch_size].view(-1, self.batch_size)[start:]

        def draws() -> Iterator[BatchDraws]:
            for step in range(start, self.steps_per_epoch):
                for low, high in parts:
                    yield BatchDraws(self.seed, epoch, step, self.batch_size, low, high)

        indices = [update[part] for update in updates for part in rows]
        batches = self.prepared(split, indices, draws())
        if mix is not None:
            batches = map(mix, batches, draws())
        for consumed in updates:
            update = [next(batches) for _ in parts]
            self.unhashed.append(consumed)
            if len(self.unhashed) == UPDATES_HASHED_AT_ONCE:
                self.hash_orders()
            yield update

    def evaluate(self, name: str) -> Iterator[Batch]:
        """This process's share of a split, every sample once over all processes."""
        split = self.splits[name]
        low, high = (len(split) * (self.rank + i) // self.world_size for i in (0, 1))
        size = min(self.eval_batch_size, len(split))
        indices = torch.arange(low, high).split(size) if high > low else ()
        yield from self.prepared(split, list(indices))

    def epoch_order(self, epoch: int) -> Tensor:
        """The sample indices of an epoch, depending on the seed and the epoch alone."""
        generator = seeded(self.seed, EPOCH_STREAM, epoch)
        split = self.splits["train"]
        if isinstance(split, TensorSplit):
            return split.epoch_order(generator)
        return torch.randperm(len(split), generator=generator)

    def prepared(
        self, split: Any, batches: list[Tensor], draws: Iterator[BatchDraws] | None = None
    ) -> Iterator[Batch]:
        """The batches of these indices, ready for the model; only evaluation has no ``draws``.

        Several at once where neither gathering nor preparing looks at a batch as a whole.
        """
        gathers_per_sample = getattr(type(split), "gather", None) is TensorSplit.gather
        if not (gathers_per_sample and getattr(self.prepare, "is_per_sample", False)):
            for batch in self.fetch(split, batches):
                yield self.prepare(batch, None if draws is None else next(draws))
            return
        start, count = 0, 1
        while start < len(batches):
            sizes = [len(indices) for indices in batches[start : start + count]]
            own = None if draws is None else DrawsTogether(list(islice(draws, len(sizes))))
            (raw,) = self.fetch(split, [torch.cat(batches[start : start + count])])
            several = self.prepare(raw, own)
            count = max(1, BYTES_AT_ONCE * len(sizes) // max(num_bytes(raw), num_bytes(several)))
            start += len(sizes)
            del raw
            if len(sizes) == 1:
                yield several
                continue
            # copies: a view would hold all of them, count their changes together, and lie where
            # some kernels round otherwise
            for parts in zip(*(tensor.split(sizes) for tensor in several), strict=True):
                yield tuple(part.clone() for part in parts)

    def fetch(self, split: Any, batches: list[Tensor]) -> Iterator[Batch]:
        """Raw batches on the device, in the order asked for."""
        if isinstance(split, TensorSplit):
            for indices in batches:
                yield split.gather(indices.to(self.device, non_blocking=True))
            return
        loader = DataLoader(
            split,
            batch_sampler=[indices.tolist() for indices in batches],
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
            # of its own: a draw from the global state would make a resumed run differ
            generator=torch.Generator(),
        )
        try:
            for batch in loader:
                yield tuple(tensor.to(self.device, non_blocking=True) for tensor in batch)
        except ConfigError as error:
            # from a worker it comes with the worker's traceback, its own line last
            raise ConfigError(str(error).strip().rpartition("ConfigError: ")[2]) from None

    def sizes(self) -> dict[str, int]:
        return {name: len(split) for name, split in self.splits.items()}


def fingerprint(splits: Splits) -> str:
    """Checksums of the splits: of all that is in memory, of what identifies a streamed one."""
    found = []
    for split in (splits.train, splits.val, splits.test):
        tensors: tuple[Tensor, ...] = ()
        if isinstance(split, TensorSplit):
            tensors = split.tensors
        elif isinstance(split, StreamedSplit):
            tensors = split.identity()
        sums = [
            zlib.crc32(t.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
            for t in tensors
        ]
        found.append((0 if split is None else len(split), sums))
    return repr(found)


def num_bytes(batch: Batch) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in batch)


def check_batch_size(batch_size: int, world_size: int, accumulate_steps: int, samples: int) -> None:
    if batch_size < 1 or batch_size > samples:
        raise ConfigError(
            f"data.batch_size={batch_size} should be between 1 and the {samples} training samples"
        )
    if batch_size % (world_size * accumulate_steps):
        raise ConfigError(
            f"data.batch_size={batch_size} does not divide into {world_size} process(es) x "
            f"trainer.accumulate_steps={accumulate_steps}: make it a multiple of "
            f"{world_size * accumulate_steps}"
        )
