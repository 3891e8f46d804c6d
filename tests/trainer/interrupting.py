"""Interrupt runs at a chosen update, and compare the records of two runs."""

import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from trainer.trainer import Trainer

TIMING_KEYS = {"seconds", "train_seconds", "optimizer_seconds", "optimizer_steps_timed"}

# 5 updates per epoch; logging, evaluations and ends of epochs fall on different updates
SHORT = (
    "data.batch_size=40",
    "trainer.max_steps=9",
    "trainer.eval_every_steps=4",
    "trainer.log_every_steps=3",
    "trainer.precision=fp32",
)


class Killed(BaseException):
    """Stands for SIGKILL; not an ``Exception``, so that error handling does not catch it."""


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """Raise :class:`Killed` instead of running update ``step``."""
    train_step = Trainer.train_step

    def train_step_or_die(self: Trainer, update: Any) -> None:
        if self.progress.step + 1 == step:
            raise Killed
        train_step(self, update)

    with patch.object(Trainer, "train_step", train_step_or_die):
        yield


@contextmanager
def signal_at(step: int, number: int = signal.SIGTERM) -> Iterator[None]:
    """Send this process a signal during update ``step``."""
    train_step = Trainer.train_step

    def train_step_and_signal(self: Trainer, update: Any) -> None:
        if self.progress.step + 1 == step:
            os.kill(os.getpid(), number)
        train_step(self, update)

    with patch.object(Trainer, "train_step", train_step_and_signal):
        yield


@contextmanager
def full_disk(num_bytes: int = 0) -> Iterator[None]:
    """Limit the size of files to ``num_bytes``; writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def events(run_dir: Path) -> list[dict[str, Any]]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def summary(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "summary.json").read_text())


def checkpoint_of(run_dir: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run_dir / "checkpoints" / f"{name}.pt", weights_only=True)


def assert_same_run(one: Path, other: Path) -> None:
    """Assert that checkpoints, events and results of two runs are bit-identical, except timings."""
    for name in ("last", "best"):
        assert_equal(checkpoint_of(one, name), checkpoint_of(other, name), name)
    assert events(one) == events(other)
    for key in ("data_order_hash", "initial_weights_hash", "steps", "epochs", "best", "status"):
        assert summary(one)[key] == summary(other)[key], key
    tests = [{k: v for k, v in summary(d).items() if "/" in k} for d in (one, other)]
    assert tests[0] == tests[1]


def assert_equal(one: Any, other: Any, where: str) -> None:
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        raw = [t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
        assert torch.equal(*raw), where  # bit for bit, NaN included
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one.keys() - TIMING_KEYS - {"wandb"}:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}[{i}]")
    else:
        assert one == other, where
