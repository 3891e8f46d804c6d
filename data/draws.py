"""Random numbers that depend on a position in the run and on nothing else.

Neither the number of processes or workers nor an interruption changes them, so none of it is state.
"""

import hashlib

import torch
from torch import Tensor

EPOCH_STREAM, BATCH_STREAM, SAMPLE_STREAM, SUBSET_STREAM = 1, 2, 3, 4


def seeded(*key: int) -> torch.Generator:
    """A generator of its own for every key; the first two are the seed and a stream."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


class BatchDraws:
    """Random numbers for one micro-batch, a row a sample.

    They are drawn for the whole update, of which ``[low, high)`` are the samples at hand: cutting
    the update into other micro-batches or over other processes gives every sample the same draw.
    """

    def __init__(
        self, seed: int, epoch: int, step: int, batch_size: int, low: int, high: int
    ) -> None:
        self.key = (seed, BATCH_STREAM, epoch, step)
        self.batch_size, self.low, self.high = batch_size, low, high
        self.generator: torch.Generator | None = None

    def uniform(self, *shape: int) -> Tensor:
        """``(samples at hand, *shape)`` uniform in [0, 1), on the CPU."""
        if self.generator is None:
            self.generator = seeded(*self.key)
        rows = torch.rand(self.batch_size, *shape, generator=self.generator)
        return rows[self.low : self.high]
