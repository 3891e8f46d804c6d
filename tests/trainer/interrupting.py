"""Interrupt runs at a chosen update, and compare what two runs left behind."""

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

CLOCKS = {"seconds", "train_seconds", "optimizer_seconds", "optimizer_steps_timed"}

# 5 updates an epoch; logs, evaluations and epochs end at different updates
SHORT = (
    "data.batch_size=40",
    "trainer.max_steps=9",
    "trainer.eval_every_steps=4",
    "trainer.log_every_steps=3",
    "trainer.precision=fp32",
)


class Killed(BaseException):
    """Stands for the end of the process."""


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """The process ends while it makes update ``step``; no handler of errors helps."""
    train_step = Trainer.train_step

    def train_step_or_die(self: Trainer, update: Any) -> None:
        if self.progress.step + 1 == step:
            raise Killed
        train_step(self, update)

    with patch.object(Trainer, "train_step", train_step_or_die):
        yield


@contextmanager
def signal_at(step: int, number: int = signal.SIGTERM) -> Iterator[None]:
    """This process gets a signal while it makes update ``step``."""
    train_step = Trainer.train_step

    def train_step_and_signal(self: Trainer, update: Any) -> None:
        if self.progress.step + 1 == step:
            os.kill(os.getpid(), number)
        train_step(self, update)

    with patch.object(Trainer, "train_step", train_step_and_signal):
        yield


@contextmanager
def full_disk(num_bytes: int = 0) -> Iterator[None]:
    """No file of this process can grow beyond ``num_bytes``."""
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
    """Weights, optimizer states, averages, random state, counters, events: all bit-equal."""
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
        for key in one.keys() - CLOCKS - {"wandb"}:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}[{i}]")
    else:
        assert one == other, where
