"""Fixtures for runs of several processes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist


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
