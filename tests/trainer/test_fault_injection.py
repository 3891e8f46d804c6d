"""One long run, killed with SIGKILL at random instants and resumed each time."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import QUIET
from tests.trainer.interrupting import assert_same_run, events

KILLS = 15
LONG = (
    "data.batch_size=25",
    "trainer.max_steps=800",
    "trainer.eval_every_steps=23",
    "trainer.limit_eval_steps=1",
    "trainer.checkpoint_every_steps=7",
    "trainer.log_every_steps=1",
    "trainer.precision=fp32",
    "trainer.ema_decay=0.99",
    "model.dropout=0.2",
    "objective.mixup_alpha=0.2",
    "optim=adamw_warmup_cosine",
    "resume=auto",
)


def run_here(config: dict, run_dir: str) -> None:
    from core.job import Job
    from train import run

    os.setpgid(0, 0)
    run(config, Job(run_dir=run_dir))


def num_events(run_dir: Path) -> int:
    file = run_dir / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.slow
def test_killed_at_random_instants(composed, data_root, tmp_path):
    """Nothing is lost: the result is bit for bit that of the run that was left alone."""
    processes = multiprocessing.get_context("spawn")
    draw = random.Random(5)
    config = composed(*QUIET, *LONG, f"data.root={data_root}")
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    for folder in (alone, killed):
        folder.mkdir()

    def start(run_dir: Path) -> multiprocessing.Process:
        process = processes.Process(target=run_here, args=(config, str(run_dir)))
        process.start()
        return process

    whole = start(alone)
    whole.join()
    assert whole.exitcode == 0
    for number in range(KILLS):
        process = start(killed)
        # every fifth anywhere: also while it starts, reads the checkpoint, builds
        most, seconds = (40, draw.uniform(0, 10)) if number % 5 == 0 else (20, 60)
        target = num_events(killed) + draw.randint(2, most)
        until = time.monotonic() + seconds
        while num_events(killed) < target and time.monotonic() < until and process.is_alive():
            time.sleep(0.005)
        assert process.is_alive(), "the run ended before it was killed: make it longer"
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    last = start(killed)
    last.join()
    assert last.exitcode == 0
    assert_same_run(alone, killed)
    assert len(events(killed)) == len(events(alone))
