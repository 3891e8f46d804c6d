"""Fixtures for runs of several processes, and for interrupted runs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from core.errors import Interrupted
from tests.trainer.interrupting import assert_same_run, signal_at, summary


@pytest.fixture
def config(composed: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Return a function that composes overrides, with W&B off and one thread per process."""
    return lambda *overrides: composed("trainer.num_threads=1", "wandb.mode=disabled", *overrides)


@pytest.fixture
def _single_process_group(tmp_path: Path) -> Iterator[None]:
    """A gloo process group with this process as its only rank."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def train_interrupted(train: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that trains to the end, interrupted by SIGTERM at each of ``steps``."""

    def train_with_interruptions(steps: tuple[int, ...], *overrides: str) -> Path:
        run_dir = tmp_path / "in_parts"
        for step in steps:
            with signal_at(step), pytest.raises(Interrupted):
                train(*overrides, "resume=auto", run_dir=run_dir)
            assert summary(run_dir)["status"] == "interrupted"
            assert summary(run_dir)["steps"] == step
        return train(*overrides, "resume=auto", run_dir=run_dir)

    return train_with_interruptions


@pytest.fixture
def check_resume(
    train: Callable[..., Path], train_interrupted: Callable[..., Path]
) -> Callable[..., Path]:
    """Return a function that trains with and without interruptions, and compares the two runs.

    They must be bit-identical; the run directory of the uninterrupted one is returned.
    """

    def train_and_compare(steps: tuple[int, ...], *overrides: str) -> Path:
        uninterrupted = train(*overrides)
        assert_same_run(uninterrupted, train_interrupted(steps, *overrides))
        return uninterrupted

    return train_and_compare
