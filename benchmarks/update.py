"""What the trainer adds to an update of a bare loop, at batch 64 and 512.

    python benchmarks/update.py [--turns 40]

LightCNN on mnist5k in fp32, without augmentation. The trainer runs as ``train.py`` runs it, with
metrics, records, W&B offline, progress and a checkpoint; evaluation is left out. The bare loop has
the same network, optimizer and resident tensors. The two take turns of five updates within one
process, so that a machine that becomes slower does so for both.

Wall time, on a quiet machine. Prints Markdown: median and quartiles over the turns.
"""

import argparse
import copy
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))

from core.job import Job
from train import run
from trainer.trainer import Trainer

ROOT = Path(__file__).parent.parent
LIMITS = {64: 1.05, 512: 1.03}  # batch size -> trainer / bare loop, at most
TURN = 5  # updates of one loop before it is the other's turn
WARM_UP = 2  # turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=40, help="of each loop")
    turns = parser.parse_args().turns
    print_circumstances()
    print(f"\n| ms an update, n = {turns} | trainer | bare loop | trainer / bare | at most |")
    print("| --- | --- | --- | --- | --- |")
    for batch_size, limit in LIMITS.items():
        trainer, bare = race(batch_size, turns)
        ratios = [own / other for own, other in zip(trainer, bare, strict=True)]
        shown = " | ".join(quartiles(values) for values in (trainer, bare, ratios))
        print(f"| batch {batch_size} | {shown} | {limit} |", flush=True)


def race(batch_size: int, turns: int) -> tuple[list[float], list[float]]:
    """Milliseconds of an update in each turn, of the trainer and of the bare loop."""
    steps = (turns + WARM_UP) * TURN
    config = composed(
        f"data.batch_size={batch_size}",
        "data.augment=[]",
        f"trainer.max_steps={steps + 1}",  # the evaluation comes after the last turn
        f"trainer.eval_every_steps={steps + 1}",
        f"trainer.checkpoint_every_steps={steps // 2}",
        "trainer.test=false",
        "trainer.precision=fp32",
        "wandb.mode=offline",
    )
    found: tuple[list[float], list[float]] = ([], [])
    bare: BareLoop | None = None
    started = time.perf_counter()
    after_step = Trainer.after_step

    def then_the_bare_loop(trainer: Trainer) -> None:
        nonlocal bare, started
        after_step(trainer)
        if trainer.progress.step % TURN:
            return
        bare = bare or BareLoop(trainer)
        middle = time.perf_counter()
        for _ in range(TURN):
            bare.update()
        end = time.perf_counter()
        found[0].append(1000 * (middle - started) / TURN)
        found[1].append(1000 * (end - middle) / TURN)
        started = time.perf_counter()

    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        mock.patch.object(Trainer, "after_step", then_the_bare_loop),
    ):
        run(config, Job(run_dir=folder))
    return found[0][WARM_UP:], found[1][WARM_UP:]


class BareLoop:
    """The loop of a tutorial, on the trainer's tensors."""

    def __init__(self, trainer: Trainer) -> None:
        self.model = copy.deepcopy(trainer.objective.model)
        self.images, self.labels = trainer.data.splits["train"].tensors
        self.scale, self.shift = trainer.data.prepare.scale, trainer.data.prepare.shift
        self.batches = torch.randperm(len(self.images)).split(trainer.data.batch_size)[:-1]
        self.done = 0
        optimizer = trainer.phases[0].optimizer
        names = {id(p): name for name, p in trainer.objective.model.named_parameters()}
        own = dict(self.model.named_parameters())
        groups = [
            {**group, "params": [own[names[id(p)]] for p in group["params"]]}
            for group in optimizer.param_groups
        ]
        self.optimizer = type(optimizer)(groups, **optimizer.defaults)

    def update(self) -> None:
        indices = self.batches[self.done % len(self.batches)]
        self.done += 1
        inputs = self.images[indices].float().mul_(self.scale).add_(self.shift)
        loss = F.cross_entropy(self.model(inputs), self.labels[indices])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def composed(*overrides: str) -> dict[str, Any]:
    """The resolved config of ``train.py`` with these overrides."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def print_circumstances() -> None:
    """When, where and with what the figures below were measured."""
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores,")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__},")
    print(f"Python {platform.python_version()}, load average {os.getloadavg()[0]:.1f}")


def quartiles(values: Sequence[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
