"""Random numbers that depend only on the seed and the position in the run.

The number of processes or workers does not change them, and resuming needs no generator state.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import numpy
import torch
from torch import Tensor

from core.rng import preserve_rng_state

# streams: the second entry of every key, after the run's seed, says what the seed is for
EPOCH_STREAM, BATCH_STREAM, SAMPLE_STREAM, SUBSET_STREAM, MIX_STREAM = 1, 2, 3, 4, 5
PROCESS_STREAM, WORKER_STREAM, EVALUATION_STREAM, PREPARE_STREAM = 6, 7, 8, 9
LATENT_STREAM, UNIFORM_STREAM, TRAINING_IMAGES_STREAM, UPDATE_STREAM = 10, 11, 12, 13
EVALUATED_MODEL_STREAM, OPTIMIZER_STREAM, COIN_STREAM = 14, 15, 16


def seed_of(*key: int) -> int:
    """A 63-bit hash of ``key``; different keys give unrelated seeds."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seeded(*key: int) -> torch.Generator:
    """A CPU generator seeded by ``key``."""
    return torch.Generator().manual_seed(seed_of(*key))


def seed_global_generators(*key: int) -> None:
    """Seed the global CPU generators of Python, numpy and torch by ``key``."""
    seed = seed_of(*key)
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


def seed_process(device: torch.device, *key: int) -> None:
    """Seed all global generators of this process by ``key``, that of ``device`` included."""
    seed_global_generators(*key)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed_of(*key))


@contextmanager
def seeded_rng(device: torch.device, *key: int) -> Iterator[None]:
    """Seed all global generators by ``key`` inside the block, and restore them afterwards."""
    module = None if device.type == "cpu" else torch.get_device_module(device)
    state = None if module is None else module.get_rng_state()
    with preserve_rng_state():
        seed_process(device, *key)
        try:
            yield
        finally:
            if module is not None:
                module.set_rng_state(state)


class BatchDraws:
    """Random numbers for one micro-batch, one row per sample.

    They are drawn for the whole update, of which rows ``[low, high)`` are kept: a sample gets the
    same draw however the update is split into micro-batches and processes. Rows wrap around: row
    -1 is the last of the update.

    Args:
        samples: index in the split of each sample; None: its row in the update.
    """

    def __init__(
        self,
        seed: int,
        epoch: int,
        step: int,
        batch_size: int,
        low: int,
        high: int,
        samples: Tensor | None = None,
    ) -> None:
        self.seed, self.epoch, self.step = seed, epoch, step
        self.samples = samples
        self.batch_size = batch_size
        self.low, self.high = low, high
        self.generator: torch.Generator | None = None

    @cached_property
    def rows(self) -> Tensor:
        return torch.arange(self.low, self.high) % self.batch_size

    def uniform(self, *shape: int) -> Tensor:
        """``(high - low, *shape)`` uniform in [0, 1), on the CPU."""
        if self.generator is None:
            self.generator = seeded(*self.key(BATCH_STREAM))
        return torch.rand(self.batch_size, *shape, generator=self.generator)[self.rows]

    def coins(self) -> Tensor:
        """0 or 1 per sample ``(N,)``, the same every time that sample is seen."""
        bits = self.rows if self.samples is None else self.samples
        bits = (bits + seed_of(self.seed, COIN_STREAM) % 2**32) % 2**32
        for _ in range(2):  # integer hash: the last bit depends on every bit of the sum
            bits = (bits ^ (bits >> 16)) * 0x45D9F3B % 2**32
        return (bits ^ (bits >> 16)) & 1

    def normal(self, *shape: int) -> Tensor:
        """``(high - low, *shape)`` standard normal, on the CPU."""
        smallest = 2.0**-25  # half the spacing of 24-bit uniform numbers
        return torch.special.ndtri(self.uniform(*shape).clamp(smallest, 1 - smallest))

    def seeds(self) -> list[int]:
        """One 48-bit seed per sample."""
        # two draws of 24 bits each, the precision of a float32
        high, low = (self.uniform(2) * 2**24).long().unbind(1)
        return (high * 2**24 + low).tolist()

    def seed_for_all_samples(self) -> None:
        """Seed the global CPU generators for draws shared by the whole update."""
        seed_global_generators(*self.key(MIX_STREAM))

    def seed_for_these_samples(self) -> None:
        """Seed the global CPU generators for draws of this micro-batch alone."""
        seed_global_generators(*self.key(PREPARE_STREAM), self.low)

    def key(self, stream: int) -> tuple[int, ...]:
        return (self.seed, stream, self.epoch, self.step)
