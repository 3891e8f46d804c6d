"""What safety costs: checkpoints in milliseconds and as a share of training, SIGTERM to exit.

    python benchmarks/robustness.py

Prints a table; benchmarks/robustness.md keeps it, with the machine it was made on.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent.parent))

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from core.job import Job
from train import run
from trainer import checkpoint
from trainer.trainer import Trainer

ROOT = Path(__file__).parent.parent
QUIET = ("wandb.mode=disabled", "trainer.progress=false", "trainer.num_threads=1")
SIGNALS = 5
SETTLED = 3.0  # seconds of training before the signal: W&B has started by then
TWO = ("trainer.devices=2", "trainer.accelerator=cpu")
EXITS = {
    "one process, no W&B": QUIET,
    "one process, W&B offline": ("wandb.mode=offline", *QUIET[1:]),
    "two processes, no W&B": (*QUIET, *TWO),
    "two processes, W&B offline": ("wandb.mode=offline", *QUIET[1:], *TWO),
}


def checkpoint_cost(*overrides: str) -> str:
    """Milliseconds that training waits for a checkpoint, and that writing one takes beside it."""
    waits: list[float] = []
    writes: list[float] = []

    def timed(function, times):
        def call(*arguments, **settings):
            start = time.perf_counter()
            result = function(*arguments, **settings)
            times.append(1000 * (time.perf_counter() - start))
            return result

        return call

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", [*QUIET, "trainer.max_epochs=3", *overrides])
    config = OmegaConf.to_container(cfg, resolve=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(Trainer, "save", timed(Trainer.save, waits)),
        patch.object(checkpoint, "save", timed(checkpoint.save, writes)),
    ):
        start = time.perf_counter()
        run(config, Job(run_dir=folder))
        seconds = time.perf_counter() - start
        size = (Path(folder) / "checkpoints" / "last.pt").stat().st_size / 1e6
    waits.sort()
    writes.sort()
    return (
        f"{' '.join(overrides)} | {size:.1f} MB | {len(waits)} | {waits[len(waits) // 2]:.1f} | "
        f"{writes[len(writes) // 2]:.1f} | {100 * sum(waits) / 1000 / seconds:.2f} %"
    )


def seconds_to_exit(*overrides: str) -> list[float]:
    """From SIGTERM in the middle of training to the end of the process."""
    times = []
    for _ in range(SIGNALS):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(ROOT / "train.py"), *overrides]
            command += ["trainer.max_epochs=1000", "trainer.log_every_steps=10"]
            command += [f"hydra.run.dir={folder}/run"]
            process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)  # fmt: skip
            events = Path(folder) / "run" / "metrics.jsonl"
            while not (events.exists() and events.stat().st_size):
                time.sleep(0.05)
            time.sleep(SETTLED)
            start = time.monotonic()
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait() == 128 + signal.SIGTERM
            times.append(time.monotonic() - start)
    return sorted(times)


if __name__ == "__main__":
    rows = [
        checkpoint_cost("model=lightcnn"),
        checkpoint_cost("model=lightcnn", "trainer.checkpoint_every_steps=10"),
        checkpoint_cost("model=customcnn"),
    ]
    print("settings | size | checkpoints | wait ms (median) | write ms (median) | share of the run")
    print("\n".join(rows))
    print(f"\nSIGTERM to exit, n = {SIGNALS} | median s | max s", flush=True)
    for name, overrides in EXITS.items():
        times = seconds_to_exit(*overrides)
        print(f"{name} | {times[SIGNALS // 2]:.2f} | {times[-1]:.2f}", flush=True)
