"""The time that training takes: waiting for data, updates and logging."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from core.progress import Progress
from trainer.distributed.device import synchronize


class Clock:
    """Adds up ``progress.train_seconds`` from the moment it is made."""

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
