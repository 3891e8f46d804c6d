"""What starting processes costs, and what they bring: one process against two.

    python benchmarks/launch.py start
    python benchmarks/launch.py scaling --model lightcnn --batch-size 64
    python benchmarks/launch.py sweep --batch-size 16

start: ``debug=fast`` with one process and with two, and how much each further job of a sweep adds.
scaling: the training rate of two processes of one thread against one process of two threads, same
global batch, evaluation and checkpoints excluded. sweep: eight jobs on mnist5k, one after the other
or by joblib. Prints Markdown for a dated page.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from trainer.distributed.device import processor_name

ROOT = Path(__file__).parent.parent
QUIET = ("wandb.mode=disabled", "trainer.progress=false", "trainer.accelerator=cpu")
TWO = ("trainer=ddp", "trainer.devices=2", "trainer.num_threads=1")
ONE = ("trainer.devices=1", "trainer.num_threads=2")
JOBS = 8
SAMPLES = 60_000  # in a run that measures a rate
# of no thread count that the shell has set
THREADS_FREE = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("start", "scaling", "sweep"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", default="lightcnn")
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, {processor_name()}, torch {torch.__version__}, ", end="")
    print(f"Python {platform.python_version()}, n = {options.repeats}, ", end="")
    print(f"load average at the start {os.getloadavg()[0]:.1f}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if options.part == "start":
            measure_start(folder, options.repeats)
        elif options.part == "scaling":
            measure_scaling(folder, options.repeats, options.model, options.batch_size)
        else:
            measure_sweep(folder, options.repeats, options.model, options.batch_size)


def measure_start(folder: str, repeats: int) -> None:
    """The whole command, and the difference that three further jobs make, for one and two."""
    print("| | one job, s | each further job of a sweep, s |")
    print("| --- | --- | --- |")
    for name, settings in (("1 process", ONE), ("2 processes", TWO)):
        alone = [train(folder, "debug=fast", *settings)["wall"] for _ in range(repeats)]
        four = [sweep(folder, "debug=fast", "seed=0,1,2,3", *settings) for _ in range(repeats)]
        further = [(seconds - statistics.median(alone)) / 3 for seconds in four]
        print(f"| {name} | {spread(alone)} | {spread(further)} |", flush=True)


def measure_scaling(folder: str, repeats: int, model: str, batch_size: int) -> None:
    steps = SAMPLES // batch_size
    settings = (f"model={model}", f"data.batch_size={batch_size}", f"trainer.max_steps={steps}")
    settings += (f"trainer.eval_every_steps={steps}", "trainer.checkpoint=false")
    pairs = [
        [train(folder, *settings, *processes)["rate"] for processes in (ONE, TWO)]
        for _ in range(repeats)
    ]
    one, two = zip(*pairs, strict=True)
    ratios = [rates[1] / rates[0] for rates in pairs]
    print("| model | batch | 1 x 2 threads, samples/s | 2 x 1 thread, samples/s | efficiency |")
    print("| --- | --- | --- | --- | --- |")
    print(f"| {model} | {batch_size} | {spread(one)} | {spread(two)} | {spread(ratios)} |")


def measure_sweep(folder: str, repeats: int, model: str, batch_size: int) -> None:
    jobs = (f"seed={','.join(map(str, range(JOBS)))}", f"model={model}")
    jobs += (f"data.batch_size={batch_size}",)
    launchers = ("basic", "joblib")
    pairs = [
        [sweep(folder, *jobs, f"hydra/launcher={name}") for name in launchers]
        for _ in range(repeats)
    ]
    one, both = zip(*pairs, strict=True)
    ratios = [alone / together for alone, together in pairs]
    print(f"| {JOBS} jobs | one after the other, s | through joblib, s | times as fast |")
    print("| --- | --- | --- | --- |")
    print(f"| {model}, {batch_size} | {spread(one)} | {spread(both)} | {spread(ratios)} |")


def sweep(folder: str, *overrides: str) -> float:
    """Seconds of a whole sweep."""
    directory = tempfile.mkdtemp(dir=folder)
    command = [sys.executable, str(ROOT / "train.py"), "-m", *QUIET, *overrides]
    command += [f"hydra.sweep.dir={directory}", f"data.root={folder}/datasets"]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=THREADS_FREE)
    return time.perf_counter() - started


def train(folder: str, *overrides: str) -> dict[str, float]:
    """One run of the command: its seconds, and samples per second of training."""
    run_dir = tempfile.mkdtemp(dir=folder)
    command = [sys.executable, str(ROOT / "train.py"), *QUIET, *overrides]
    command += [f"hydra.run.dir={run_dir}", f"data.root={folder}/datasets"]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=THREADS_FREE)
    wall = time.perf_counter() - started
    summary = json.loads((Path(run_dir) / "summary.json").read_text())
    return {"wall": wall, "rate": summary["samples_per_second"]}


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    digits = 0 if middle > 100 else 1 if middle > 10 else 2
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


if __name__ == "__main__":
    main()
