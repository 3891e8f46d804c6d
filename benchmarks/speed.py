"""How fast the program is, beside loops written by hand: whole processes, and single updates.

    python benchmarks/speed.py --root datasets --repeats 3
    python benchmarks/speed.py --smoke

Processes: one epoch and a test, by ``train.py`` and by the tutorials' loop (torchvision transforms,
DataLoader, fp32, SGD) on the same images. MNIST is downloaded to ``--root``; generated images of
its shape stand for CIFAR-10.

Updates: the trainer with metrics, records, W&B offline, progress and checkpoints, beside a bare
loop over the same resident tensors; evaluation is left out, augmentation is off. On one thread, and
in CPU time of the loop's thread, which what else the machine does disturbs least.

Contestants take turns; ratios are medians over the turns. Prints Markdown.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).parent.parent))

from data.build import build_splits
from data.splits import TensorSplit
from models.build import fill_from_data
from train import run
from trainer.instantiate import instantiate
from trainer.job import Job
from trainer.trainer import Trainer

ROOT = Path(__file__).parent.parent
COMMON = ("trainer.accelerator=cpu", "data.augment=[]")
CIFAR_LIKE = ("data=synthetic_images", "data.channels=3", "data.image_size=32")
PROCESSES = {
    "LightCNN, MNIST": ("model=lightcnn", "data=mnist"),
    "CustomCNN, CIFAR-like": ("model=customcnn", *CIFAR_LIKE, "data.num_train=10000"),
}
UPDATES = {
    "LightCNN, batch 64": ("model=lightcnn", "data=mnist5k", "data.batch_size=64"),
    "LightCNN, batch 512": ("model=lightcnn", "data=mnist5k", "data.batch_size=512"),
    "CustomCNN, batch 64": ("model=customcnn", *CIFAR_LIKE, "data.batch_size=64"),
}
SMOKE = ("data=synthetic_images", "data.num_train=256", "data.num_test=64", "data.batch_size=64")
PRECISIONS = ("fp32", "bf16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="datasets", help="where the data sets are")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="updates a turn, at batch 64")
    parser.add_argument("--only", choices=("processes", "updates"))
    parser.add_argument(
        "--smoke", action="store_true", help="the first row of each, on next to nothing"
    )
    parser.add_argument("--tutorial", nargs="+", metavar="OVERRIDE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tutorial:
        print(json.dumps({"test/accuracy": tutorial(options.tutorial)}))
        return
    repeats = 1 if options.smoke else options.repeats
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, torch ")
    print(f"{torch.__version__}, Python {platform.python_version()}, n = {repeats}, ")
    print(f"load average {os.getloadavg()[0]:.1f}")
    common = (*COMMON, f"data.root={options.root}")
    if options.only != "updates":
        compare_processes(common, repeats, options.smoke)
    if options.only != "processes":
        compare_updates(common, repeats, options.steps, options.smoke)


def compare_processes(common: tuple[str, ...], repeats: int, smoke: bool) -> None:
    print("\n| one epoch, batch 64 | wall s | CPU s | CPU ratio to the tutorial | test accuracy |")
    print("| --- | --- | --- | --- | --- |")
    for name, choice in list(PROCESSES.items())[: 1 if smoke else None]:
        overrides = (*choice, *(SMOKE if smoke else ()), *common)
        turns = [one_turn(overrides) for _ in range(repeats)]
        for contestant in turns[0]:
            wall, cpu, accuracy = zip(*(turn[contestant] for turn in turns), strict=True)
            ratios = [turn["tutorial, fp32"][1] / turn[contestant][1] for turn in turns]
            print(
                f"| {name}: {contestant} | {spread(wall)} | {spread(cpu)} | {spread(ratios)} | "
                f"{statistics.median(accuracy):.2%} |",
                flush=True,
            )


def one_turn(overrides: tuple[str, ...]) -> dict[str, tuple[float, float, float]]:
    """Wall seconds, CPU seconds and test accuracy of each contestant's process."""
    script = str(ROOT / "train.py")
    found = {"tutorial, fp32": timed([__file__, "--tutorial", *overrides])}
    for precision in ("fp32", "auto"):
        with tempfile.TemporaryDirectory() as folder:
            command = [script, *overrides, "trainer.max_epochs=1", "wandb.mode=offline"]
            command += [f"trainer.precision={precision}", f"hydra.run.dir={folder}"]
            wall, cpu, _ = timed(command)
            summary = json.loads((Path(folder) / "summary.json").read_text())
        found[f"ours, {precision}"] = (wall, cpu, summary["test/accuracy"])
    return found


def timed(command: list[str]) -> tuple[float, float, float]:
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    last = done.stdout.splitlines()[-1]
    accuracy = json.loads(last)["test/accuracy"] if last.startswith("{") else float("nan")
    return time.perf_counter() - started, cpu, accuracy


class Pictures(Dataset[Any]):
    """A split as torchvision's data sets serve it: image by image, through PIL."""

    def __init__(self, split: TensorSplit, transform: Callable[[Any], Any]) -> None:
        self.images, self.labels = (tensor.numpy() for tensor in split.tensors)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        image = Image.fromarray(self.images[index].transpose(1, 2, 0).squeeze())
        return self.transform(image), int(self.labels[index])


def tutorial(overrides: list[str]) -> float:
    """One epoch as the tutorials write it; the test accuracy."""
    from torchvision import transforms

    config = composed(*overrides)
    splits = build_splits(config["data"])
    model = instantiate(fill_from_data(config["model"], splits.spec), "model")
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(splits.spec.mean, splits.spec.std)]
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for images, labels in DataLoader(Pictures(splits.train, transform), 64, shuffle=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    model.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in DataLoader(Pictures(splits.test, transform), 500):
            correct += int((model(images).argmax(1) == labels).sum())
    return correct / len(splits.test)


def compare_updates(common: tuple[str, ...], repeats: int, steps: int, smoke: bool) -> None:
    print("\n| CPU ms an update, 1 thread | ours | bare loop | ours / bare |")
    print("| --- | --- | --- | --- |")
    for name, choice in list(UPDATES.items())[: 1 if smoke else None]:
        for precision in PRECISIONS:
            overrides = (*choice, *common, f"trainer.precision={precision}")
            config = composed(*overrides)
            num_steps = 4 if smoke else steps * 64 // config["data"]["batch_size"]
            turns = []
            for _ in range(repeats + 1):
                milliseconds, trainer = trainer_update(overrides, num_steps)
                turns.append((milliseconds, bare_update(trainer, num_steps)))
            ours, bare = zip(*turns[1:], strict=True)  # the first turn warms up
            ratios = [mine / theirs for mine, theirs in zip(ours, bare, strict=True)]
            shown = " | ".join(spread(values) for values in (ours, bare, ratios))
            print(f"| {name}, {precision} | {shown} |", flush=True)


def trainer_update(overrides: tuple[str, ...], num_steps: int) -> tuple[float, Trainer]:
    """CPU milliseconds of an update by the trainer, and the trainer."""
    clock = Clock()
    train, measure = Trainer.train, Trainer.measure
    trainers = []

    def timed_train(trainer: Trainer) -> None:
        trainers.append(trainer)
        with clock.running():
            train(trainer)

    def untimed_measure(trainer: Trainer, split: str) -> Any:
        with clock.stopped():
            return measure(trainer, split)

    config = composed(
        *overrides,
        f"trainer.max_steps={num_steps}",
        "trainer.num_threads=1",
        "trainer.test=false",
        "wandb.mode=offline",
    )
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        mock.patch.object(Trainer, "train", timed_train),
        mock.patch.object(Trainer, "measure", untimed_measure),
    ):
        run(config, Job(run_dir=folder))
    return 1000 * clock.seconds / num_steps, trainers[0]


def bare_update(trainer: Trainer, num_steps: int) -> float:
    """CPU milliseconds of an update by nothing but the loop, of the same model and tensors."""
    model = trainer.objective.model.train()
    images, labels = trainer.data.splits["train"].tensors
    scale, shift = trainer.data.prepare.scale, trainer.data.prepare.shift
    batch_size = trainer.data.batch_size
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True,
                                weight_decay=5e-4, fused=True)  # fmt: skip
    is_bf16 = trainer.precision == "bf16"
    clock, done = Clock(), 0
    with clock.running():
        while done < num_steps:
            order = torch.randperm(len(images)).split(batch_size)
            for indices in order[: min(len(images) // batch_size, num_steps - done)]:
                inputs = images.index_select(0, indices).float().mul_(scale).add_(shift)
                with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
                    logits = model(inputs)
                loss = F.cross_entropy(logits.float(), labels.index_select(0, indices))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                done += 1
    return 1000 * clock.seconds / num_steps


class Clock:
    """CPU seconds of the calling thread: those of W&B's thread are not the loop's."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        start = time.thread_time()
        yield
        self.seconds += time.thread_time() - start

    @contextmanager
    def stopped(self) -> Iterator[None]:
        start = time.thread_time()
        yield
        self.seconds -= time.thread_time() - start


def composed(*overrides: str) -> dict[str, Any]:
    """The resolved config of ``train.py`` with these overrides."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def spread(values: Any) -> str:
    """Median and range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
