"""Overhead of the trainer over a bare loop, per update at batch sizes 64 and 512.

    python benchmarks/update.py [--turns 40]

LightCNN on mnist5k in fp32, without augmentation. The trainer runs as in ``train.py``, with
metrics, records, W&B offline, progress and a checkpoint, but without evaluation. The bare loop has
the same network, optimizer and resident tensors. They take turns of five updates in one process, so
that changes in the machine's load affect both. Measures wall time: needs a quiet machine.
Prints Markdown: median and quartiles over the turns.
"""

import argparse
import copy
import gc
import io
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))

from data.splits import Batch
from models.outputs import prediction_of
from objectives.classification import Classification
from objectives.language_modeling import LanguageModeling
from train import train
from trainer.distributed.device import autocast, peak_memory_bytes, synchronize
from trainer.trainer import Trainer

LIMITS = {64: 1.05, 512: 1.03}  # batch size -> trainer / bare loop, at most
TURN = 5  # updates of one loop before the other takes over
WARM_UP = 2  # turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=40, help="turns of each loop")
    turns = parser.parse_args().turns
    print_circumstances()
    print(f"\n| ms per update, n = {turns} | trainer | bare loop | trainer / bare | at most |")
    print("| --- | --- | --- | --- | --- |")
    for batch_size, limit in LIMITS.items():
        sizes = (f"data.batch_size={batch_size}", "data.augment=[]", "trainer.precision=fp32")
        *times, _ = race(turns, *sizes)
        shown = " | ".join(map(quartiles, times))
        print(f"| batch {batch_size} | {shown} | {limit} |", flush=True)


def race(turns: int, *overrides: str) -> tuple[Any, ...]:
    """Per turn: ms per update of the trainer and of the bare loop, their ratio; the loop."""
    gc.collect()  # frees the previous race, which would count in the peak memory
    steps = (turns + WARM_UP) * TURN
    laps = [time.perf_counter()]
    loops: list[BareLoop] = []
    after_step = Trainer.after_step

    def with_bare_loop(trainer: Trainer) -> None:
        after_step(trainer)
        if trainer.progress.step % TURN:
            return
        synchronize(trainer.device)
        laps.append(time.perf_counter())
        if not loops:
            loops.append(BareLoop(trainer))
        for _ in range(TURN):
            loops[0].update()
        synchronize(trainer.device)
        laps.append(time.perf_counter())
        if trainer.progress.step == steps:
            trainer.progress.stop_reason = "the last turn is over"  # skips the evaluation

    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        redirect_stdout(io.StringIO()),
        mock.patch.object(Trainer, "after_step", with_bare_loop),
    ):
        train(
            *overrides,
            f"trainer.max_steps={steps + TURN}",
            f"trainer.eval_every_steps={steps + TURN}",
            f"trainer.checkpoint_every_steps={steps // 2}",
            "trainer.test=false",
            "wandb.mode=offline",
            f"hydra.run.dir={folder}",
        )
    times = [1000 * (end - start) / TURN for start, end in pairwise(laps)][2 * WARM_UP :]
    trainer, bare = times[::2], times[1::2]
    return trainer, bare, [one / other for one, other in zip(trainer, bare, strict=True)], loops[0]


class BareLoop:
    """A plain training loop, as in tutorials, on the trainer's tensors."""

    def __init__(self, trainer: Trainer) -> None:
        self.peak_bytes = peak_memory_bytes(trainer.device)  # before this loop allocates
        self.trainer, self.data, self.precision = trainer, trainer.data, trainer.precision
        self.order = cycle(self.data.epoch_order(0).split(self.data.batch_size))
        optimizers: dict[str, Any] = {phase.name: phase.optimizer for phase in trainer.phases}
        self.objective, self.optimizers = copy.deepcopy((trainer.objective, optimizers))
        for phase in trainer.phases:
            self.optimizers[phase.name].state.clear()
            for group in self.optimizers[phase.name].param_groups:
                group |= {"lr": phase.lr, "capturable": False}  # True under a CUDA graph

    def update(self) -> None:
        batch = self.data.prepare(self.data.splits["train"].batch(next(self.order)), None)
        for phase, optimizer in self.optimizers.items():
            with autocast(self.data.device, self.precision):
                loss = self.loss(phase, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def loss(self, phase: str, batch: Batch) -> Tensor:
        if type(self.objective) in (Classification, LanguageModeling):  # others compute metrics too
            *inputs, targets = batch
            logits = prediction_of(self.objective.model(*inputs))
            return F.cross_entropy(logits.flatten(0, -2), targets.flatten())
        return self.objective(phase, batch)[0]


def print_circumstances() -> None:
    """Print date, hardware and versions of the measurement."""
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores,")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__},")
    print(f"Python {platform.python_version()}, load average {os.getloadavg()[0]:.1f}")


def quartiles(values: Sequence[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
