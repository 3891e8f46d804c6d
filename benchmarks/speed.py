"""How fast the program is, beside loops written by hand: processes, updates, time to quality.

    python benchmarks/speed.py --root datasets
    python benchmarks/speed.py --smoke

Processes: one epoch at batch 64 and a test, by ``train.py`` with everything on (evaluation,
records, W&B offline, checkpoints) and by ``benchmarks/tutorial.py`` on the same images.
``--root`` holds MNIST and ``cifar-10-batches-py``. Contestants take turns.

Updates: the trainer with metrics, records, W&B offline, progress and checkpoints, beside a bare
loop over the same resident tensors. The two take turns within one process, every few updates, so
that a machine that becomes slower does so for both; evaluation is left out, augmentation is off.

Quality: seconds of training until LightCNN is right on 98 % of the validation digits of mnist5k,
by the recorded recipe and by the tutorial's (SGD 0.01 with momentum, no augmentation, fp32), in
our loop both: what is compared is the recipe, and seeds take turns.

Wall time, on a quiet machine. Prints Markdown: the median and, in brackets, the range (of
processes) or the quartiles (of updates).
"""

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
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
PROCESSES = {
    "LightCNN, MNIST": ("lightcnn", "mnist"),
    "CustomCNN, CIFAR-10": ("customcnn", "cifar10"),
}
OURS = (
    ("ours, fp32", "fp32", "offline"),
    ("ours, auto", "auto", "offline"),
    ("ours, auto, W&B off", "auto", "disabled"),
)
UPDATES = {
    "LightCNN, batch 64": ("model=lightcnn", "data=mnist5k", "data.batch_size=64"),
    "LightCNN, batch 512": ("model=lightcnn", "data=mnist5k", "data.batch_size=512"),
    "CustomCNN, batch 64": ("model=customcnn", "optim=sgd_cosine", "data=cifar10"),
    "CustomCNN, batch 512": (
        "model=customcnn",
        "optim=sgd_cosine",
        "data=cifar10",
        "data.batch_size=512",
    ),
}
TUTORIAL = (
    "scheduler=constant",
    "optimizer.lr=0.01",
    "optimizer.nesterov=false",
    "optimizer.weight_decay=0",
    "data.augment=[]",
    "trainer.precision=fp32",
    "trainer.max_epochs=60",
)
RECIPES = {"tutorial": TUTORIAL, "mnist5k_quick": ("experiment=mnist5k_quick",)}
QUALITY = 0.98
FIRST_SEED = 10  # the recipe was chosen on seeds 0 to 3
PRECISIONS = ("fp32", "bf16")
TURN = 5  # updates of one loop before it is the other's turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="datasets", help="where the data sets are")
    parser.add_argument("--repeats", type=int, default=3, help="of whole processes")
    parser.add_argument("--turns", type=int, default=40, help="of each loop, for updates")
    parser.add_argument("--only", choices=("processes", "updates", "quality"))
    parser.add_argument("--seeds", type=int, default=5, help="of each recipe, for quality")
    parser.add_argument("--match", default="", help="measure the rows whose name contains this")
    parser.add_argument("--smoke", action="store_true", help="next to nothing: it runs")
    options = parser.parse_args()
    print_circumstances()
    if options.smoke:
        compare_updates({"LightCNN, batch 64": UPDATES["LightCNN, batch 64"]}, options.root, 3)
        return
    chosen = [
        {name: row for name, row in rows.items() if options.match in name}
        for rows in (PROCESSES, UPDATES)
    ]
    if options.only in (None, "processes"):
        compare_processes(chosen[0], options.root, options.repeats)
    if options.only in (None, "updates"):
        compare_updates(chosen[1], options.root, options.turns)
    if options.only in (None, "quality"):
        compare_quality(options.root, options.seeds)


def print_circumstances() -> None:
    """When, where and with what the figures below were measured."""
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores,")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__},")
    print(f"Python {platform.python_version()}, load average {os.getloadavg()[0]:.1f}")


def compare_processes(rows: dict[str, tuple[str, str]], root: str, repeats: int) -> None:
    print(f"\n| one epoch, batch 64, n = {repeats} | wall s | tutorial / this | test accuracy |")
    print("| --- | --- | --- | --- |")
    for name, (model, data) in rows.items():
        turns = [one_turn(model, data, root) for _ in range(repeats)]
        for contestant in turns[0]:
            wall, accuracy = zip(*(turn[contestant] for turn in turns), strict=True)
            ratios = [turn["tutorial, fp32"][0] / turn[contestant][0] for turn in turns]
            print(
                f"| {name}: {contestant} | {spread(wall)} | {spread(ratios)} | "
                f"{statistics.median(accuracy):.2%} |",
                flush=True,
            )


def one_turn(model: str, data: str, root: str) -> dict[str, tuple[float, float]]:
    """Wall seconds and test accuracy of each contestant's process."""
    seconds, output = timed([str(ROOT / "benchmarks" / "tutorial.py"), model, root])
    found = {"tutorial, fp32": (seconds, float(output.split()[-1]))}
    for name, precision, mode in OURS:
        with tempfile.TemporaryDirectory() as folder:
            command = [str(ROOT / "train.py"), f"model={model}", f"data={data}"]
            command += [f"data.root={root}", "data.augment=[]", "trainer.max_epochs=1"]
            command += [f"trainer.precision={precision}", f"wandb.mode={mode}"]
            seconds, _ = timed([*command, f"hydra.run.dir={folder}"])
            summary = json.loads((Path(folder) / "summary.json").read_text())
        found[name] = (seconds, summary["test/accuracy"])
    return found


def timed(command: list[str]) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True)
    return time.perf_counter() - started, done.stdout


def compare_updates(rows: dict[str, tuple[str, ...]], root: str, turns: int) -> None:
    print(f"\n| ms an update, n = {turns} turns of {TURN} | ours | bare loop | ours / bare |")
    print("| --- | --- | --- | --- |")
    for name, overrides in rows.items():
        for precision in PRECISIONS:
            rival = Rival(turns)
            ours, bare = rival.race(
                *overrides,
                f"data.root={root}",
                "data.augment=[]",
                f"trainer.precision={precision}",
                "wandb.mode=offline",
            )
            ratios = [mine / theirs for mine, theirs in zip(ours, bare, strict=True)]
            shown = " | ".join(quartiles(values) for values in (ours, bare, ratios))
            print(f"| {name}, {precision} | {shown} |", flush=True)


def compare_quality(root: str, seeds: int) -> None:
    print(f"\n| recipe, n = {seeds} seeds | reached {QUALITY:.0%} | updates | training s |")
    print("| --- | --- | --- | --- |")
    found: dict[str, list[tuple[bool, int, float]]] = {name: [] for name in RECIPES}
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        for name, overrides in RECIPES.items():
            found[name].append(until_target(root, seed, overrides))
    for name, runs in found.items():
        reached, updates, seconds = zip(*runs, strict=True)
        print(f"| {name} | {sum(reached)} of {seeds} | {spread(updates)} | {spread(seconds)} |")
    print("A run that did not reach it counts with all that it trained.")


def until_target(root: str, seed: int, overrides: tuple[str, ...]) -> tuple[bool, int, float]:
    """Whether the target was reached, after how many updates and seconds of training."""
    config = composed(
        *overrides,
        f"data.root={root}",
        f"seed={seed}",
        f"trainer.target={QUALITY}",
        "trainer.stop_at_target=true",
        "trainer.test=false",
        "wandb.mode=disabled",
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
    ):
        run(config, Job(run_dir=folder))
        summary = json.loads((Path(folder) / "summary.json").read_text())
    return summary["target"] is not None, summary["steps"], summary["train_seconds"]


class Rival:
    """A bare loop that takes turns with the trainer, update by update of the same tensors."""

    def __init__(self, turns: int) -> None:
        self.turns = turns + 2  # the first ones warm up
        self.ours: list[float] = []
        self.bare: list[float] = []
        self.started = 0.0

    def race(self, *overrides: str) -> tuple[list[float], list[float]]:
        """Milliseconds of an update in each turn, of the trainer and of the bare loop."""
        steps = self.turns * TURN
        config = composed(
            *overrides,
            f"trainer.max_steps={steps + 1}",  # the evaluation comes after the last turn
            f"trainer.eval_every_steps={steps + 1}",
            f"trainer.checkpoint_every_steps={steps // 2}",
            "trainer.test=false",
        )
        after_step = Trainer.after_step

        def then_the_rival(trainer: Trainer) -> None:
            after_step(trainer)
            if trainer.progress.step % TURN == 0:
                self.take_turn(trainer)

        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            open(os.devnull, "w") as nowhere,
            redirect_stdout(nowhere),
            mock.patch.object(Trainer, "after_step", then_the_rival),
        ):
            run(config, Job(run_dir=folder))
        return self.ours[2:], self.bare[2:]

    def take_turn(self, trainer: Trainer) -> None:
        now = time.perf_counter()
        if self.started:
            self.ours.append(1000 * (now - self.started) / TURN)
        else:
            self.prepare(trainer)
        start = time.perf_counter()
        for _ in range(TURN):
            self.update()
        self.started = time.perf_counter()
        if self.ours:
            self.bare.append(1000 * (self.started - start) / TURN)

    def prepare(self, trainer: Trainer) -> None:
        self.model = copy.deepcopy(trainer.objective.model)
        self.images, self.labels = trainer.data.splits["train"].tensors
        self.scale, self.shift = trainer.data.prepare.scale, trainer.data.prepare.shift
        self.batches = torch.randperm(len(self.images)).split(trainer.data.batch_size)
        self.done = 0
        self.is_bf16 = trainer.precision == "bf16"
        optimizer = trainer.phases[0].optimizer
        names = {id(p): name for name, p in trainer.objective.model.named_parameters()}
        own = dict(self.model.named_parameters())
        groups = [
            {**group, "params": [own[names[id(p)]] for p in group["params"]]}
            for group in optimizer.param_groups  # without weight decay for norms and biases, too
        ]
        self.optimizer = type(optimizer)(groups, **optimizer.defaults)

    def update(self) -> None:
        indices = self.batches[self.done % (len(self.batches) - 1)]
        self.done += 1
        inputs = self.images.index_select(0, indices).float().mul_(self.scale).add_(self.shift)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.is_bf16):
            logits = self.model(inputs)
        loss = F.cross_entropy(logits.float(), self.labels.index_select(0, indices))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def composed(*overrides: str) -> dict[str, Any]:
    """The resolved config of ``train.py`` with these overrides."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def quartiles(values: Sequence[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
