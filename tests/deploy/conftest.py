"""A finished run that the tests of this folder share."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def finished_run(train_in: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a LightCNN run of 100 updates on real digits; tests must not change it."""
    return train_in(tmp_path_factory.mktemp("finished"), "trainer.max_steps=100")


@pytest.fixture
def copied_run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, which a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "copy"))
