"""A finished run to use, trained once for all tests."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def finished_run(train_in: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a LightCNN after a few updates on real digits; not to be changed."""
    return train_in(tmp_path_factory.mktemp("finished"), "trainer.max_steps=100")


@pytest.fixture
def copied_run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(finished_run, tmp_path / "copy"))
