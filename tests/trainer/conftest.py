"""Fixtures for runs of several processes, and for runs in parts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from core.errors import Interrupted
from tests.trainer.interrupting import assert_same_run, signal_at, summary


@pytest.fixture
def config(composed: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """``config("trainer.devices=2", ...)``: resolved, quiet, one thread a process."""
    return lambda *overrides: composed("trainer.num_threads=1", "wandb.mode=disabled", *overrides)


@pytest.fixture
def _alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def interrupted(train: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """``interrupted(steps, *overrides)``: run, interrupted at each of ``steps``, to the end."""

    def run_in_parts(steps: tuple[int, ...], *overrides: str) -> Path:
        run_dir = tmp_path / "in_parts"
        for step in steps:
            with signal_at(step), pytest.raises(Interrupted):
                train(*overrides, "resume=auto", run_dir=run_dir)
            assert summary(run_dir)["status"] == "interrupted"
            assert summary(run_dir)["steps"] == step
        return train(*overrides, "resume=auto", run_dir=run_dir)

    return run_in_parts


@pytest.fixture
def resumable(train: Callable[..., Path], interrupted: Callable[..., Path]) -> Callable[..., Path]:
    """``resumable(steps, *overrides)``: a whole run, equal bit for bit to one interrupted there."""

    def run_twice(steps: tuple[int, ...], *overrides: str) -> Path:
        whole = train(*overrides)
        assert_same_run(whole, interrupted(steps, *overrides))
        return whole

    return run_twice
