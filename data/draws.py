"""Random numbers that depend on a position in the run and on nothing else.

Neither the number of processes or workers nor an interruption changes them, so none of it is state.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor

EPOCH_STREAM, BATCH_STREAM, SAMPLE_STREAM, SUBSET_STREAM, MIX_STREAM = 1, 2, 3, 4, 5


def seed_of(*key: int) -> int:
    """A seed of its own for every key; the first two are the run's seed and a stream."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seeded(*key: int) -> torch.Generator:
    """A generator of its own for every key."""
    return torch.Generator().manual_seed(seed_of(*key))


class DrawsTogether:
    """The random numbers of several micro-batches, one after the other, as if they were one."""

    def __init__(self, parts: Sequence["BatchDraws"]) -> None:
        self.parts = parts

    def uniform(self, *shape: int) -> Tensor:
        return torch.cat([part.uniform(*shape) for part in self.parts])


class BatchDraws:
    """Random numbers for one micro-batch, a row a sample.

    They are drawn for the whole update, of which ``[low, high)`` are the samples at hand: cutting
    the update into other micro-batches or over other processes gives every sample the same draw.
    The update is a ring: sample -1 is its last.
    """

    def __init__(
        self, seed: int, epoch: int, step: int, batch_size: int, low: int, high: int
    ) -> None:
        self.update = (seed, epoch, step)
        self.batch_size = batch_size
        self.low, self.high = low, high
        self.generator: torch.Generator | None = None

    @cached_property
    def rows(self) -> Tensor:
        return torch.arange(self.low, self.high) % self.batch_size

    def uniform(self, *shape: int) -> Tensor:
        """``(samples at hand, *shape)`` uniform in [0, 1), on the CPU."""
        if self.generator is None:
            seed, epoch, step = self.update
            self.generator = seeded(seed, BATCH_STREAM, epoch, step)
        return torch.rand(self.batch_size, *shape, generator=self.generator)[self.rows]

    @contextmanager
    def for_all_samples(self) -> Iterator[None]:
        """What torch draws by itself on the CPU is the same for every sample of the update."""
        seed, epoch, step = self.update
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(seed, MIX_STREAM, epoch, step))
            yield
