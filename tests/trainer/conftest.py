"""Fixtures for runs of several processes."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def config(composed: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """``config("trainer.devices=2", ...)``: resolved, quiet, one thread a process."""
    return lambda *overrides: composed("trainer.num_threads=1", "wandb.mode=disabled", *overrides)
