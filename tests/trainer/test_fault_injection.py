"""A long run, killed with SIGKILL at random times and resumed each time."""

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
def test_run_killed_at_random_times_equals_uninterrupted(composed, data_root, tmp_path):
    """Checkpoints and records are bit-identical to those of an uninterrupted run."""
    context = multiprocessing.get_context("spawn")
    rng = random.Random(5)
    config = composed(*QUIET, *LONG, f"data.root={data_root}")
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    for folder in (uninterrupted, killed):
        folder.mkdir()

    def start(run_dir: Path) -> multiprocessing.Process:
        process = context.Process(target=run_here, args=(config, str(run_dir)))
        process.start()
        return process

    reference = start(uninterrupted)
    reference.join()
    assert reference.exitcode == 0
    for attempt in range(KILLS):
        process = start(killed)
        # every fifth kill may also fall into start-up or loading the checkpoint
        max_events, seconds = (40, rng.uniform(0, 10)) if attempt % 5 == 0 else (20, 60)
        target = num_events(killed) + rng.randint(2, max_events)
        deadline = time.monotonic() + seconds
        while num_events(killed) < target and time.monotonic() < deadline and process.is_alive():
            time.sleep(0.005)
        assert process.is_alive(), "the run ended before it was killed: make it longer"
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    last = start(killed)
    last.join()
    assert last.exitcode == 0
    assert_same_run(uninterrupted, killed)
    assert len(events(killed)) == len(events(uninterrupted))
