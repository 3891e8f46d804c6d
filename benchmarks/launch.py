"""What starting processes costs, and what they bring: one process against two.

    python benchmarks/launch.py --repeats 5

Start-up: ``debug=fast`` with one process and with two; the difference is the launch's overhead per
job, in seconds of the clock and of the CPU (the latter barely depends on what else runs here).
Scaling: the training rate of two processes of one thread against one process of two threads, same
global batch, evaluation and checkpoints excluded. Prints Markdown for a dated page.
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
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
QUIET = ("wandb.mode=disabled", "trainer.progress=false", "trainer.accelerator=cpu")
TWO = ("trainer=ddp", "trainer.devices=2", "trainer.num_threads=1")
ONE = ("trainer.devices=1", "trainer.num_threads=2")
RATE = (
    "trainer.max_steps=60",
    "trainer.eval_every_steps=60",
    "trainer.limit_eval_steps=1",
    "trainer.checkpoint=false",
)
MODELS = ("lightcnn", "customcnn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=512)
    options = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, torch ")
    print(f"{torch.__version__}, Python {platform.python_version()}, n = {options.repeats}, ")
    print(f"load average at the start {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory() as folder:
        print("| start-up | wall s | CPU s |\n| --- | --- | --- |")
        for name, settings in (("1 process", ONE), ("2 processes", TWO)):
            runs = [train(folder, "debug=fast", *settings) for _ in range(options.repeats)]
            wall, cpu = ([run[key] for run in runs] for key in ("wall", "cpu"))
            print(f"| {name} | {spread(wall)} | {spread(cpu)} |", flush=True)
        print("\n| model | 1 x 2 threads, samples/s | 2 x 1 thread, samples/s | efficiency |")
        print("| --- | --- | --- | --- |")
        for model in MODELS:
            batch = (f"model={model}", f"data.batch_size={options.batch_size}", *RATE)
            one, two = (
                [train(folder, *batch, *settings)["rate"] for _ in range(options.repeats)]
                for settings in (ONE, TWO)
            )
            ratio = statistics.median(two) / statistics.median(one)
            print(f"| {model} | {spread(one)} | {spread(two)} | {ratio:.2f} |", flush=True)


def train(folder: str, *overrides: str) -> dict[str, float]:
    """One run of the command: seconds of the clock, of the CPU, and samples per second."""
    run_dir = tempfile.mkdtemp(dir=folder)
    command = [sys.executable, str(ROOT / "train.py"), *QUIET, *overrides]
    command += [f"hydra.run.dir={run_dir}", f"data.root={folder}/datasets"]
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    summary = json.loads((Path(run_dir) / "summary.json").read_text())
    return {
        "wall": time.perf_counter() - started,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "rate": summary["samples_per_second"],
    }


def spread(values: list[float]) -> str:
    """Median and range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    digits = 0 if middle > 100 else 1
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


if __name__ == "__main__":
    main()
