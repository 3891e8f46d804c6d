"""The records of this process: rank 0's are real, those of the others do nothing.

So the loop asks nobody who they are.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from core.collectives import broadcast
from core.job import Job
from core.progress import Progress
from core.ranks import Ranks
from objectives.base import Objective
from trainer.checkpoint import Start
from trainer.loggers.run_log import Records

if TYPE_CHECKING:
    from trainer.trainer import Trainer


def open_records(config: dict[str, Any], job: Job, ranks: Ranks, start: Start) -> Records:
    """Records in rank 0's run directory, which it shares with all other processes."""
    common = broadcast(job)
    if common.run_dir != job.run_dir:
        discard(job.path)
    if ranks.is_main:
        return Records(config, common, start)
    return NoRecords(config, common, start, ranks.rank)


def discard(run_dir: Path) -> None:
    """Take away what Hydra made for a process that torchrun started, or on another node."""
    with suppress(OSError):  # not empty
        run_dir.rmdir()


class NoRecords(Records):
    """The records of every rank but the first: a file for what the process prints."""

    def __init__(self, config: dict[str, Any], job: Job, start: Start, rank: int) -> None:
        self.run_dir = job.path
        self.num_events = start.num_events
        self.summary = {}
        self.log_file = self.run_dir / f"rank_{rank}.log"

    def __enter__(self) -> Records:
        with self.log_file.open("a") as file:
            for descriptor in (1, 2):  # for good: what libraries print in C++ at the end, too
                os.dup2(file.fileno(), descriptor)
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def begin(self, config: dict[str, Any], trainer: Trainer) -> None:
        pass

    def measure(self, trainer: Trainer) -> None:
        pass

    def end(self, trainer: Trainer) -> None:
        pass

    def start(self, total_steps: int, step: int) -> None:
        pass

    def advance(self, step: int) -> None:
        pass

    def log(self, values: dict[str, float], step: int, epoch: float, seconds: float) -> None:
        pass

    def print(self, text: str) -> None:
        pass

    def evaluation(self, progress: Progress, metrics: dict[str, float], is_best: bool) -> None:
        pass

    def show(
        self, objective: Objective, samples: dict[str, Tensor], split: Any, name: str, step: int
    ) -> None:
        pass

    def preview(self, objective: Objective, model: nn.Module, step: int) -> None:
        pass

    def wandb_state(self) -> dict[str, Any]:
        return {}
