"""A finished run to use, trained once for all tests."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUIET


@pytest.fixture(scope="session")
def finished_run(
    composed: Callable[..., dict[str, Any]],
    data_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The directory of a LightCNN after a few updates on real digits; not to be changed."""
    from core.job import Job
    from train import run

    folder = tmp_path_factory.mktemp("finished")
    config = composed(*QUIET, f"data.root={data_root}", "trainer.max_steps=100")
    run(config, Job(run_dir=str(folder)))
    return folder


@pytest.fixture
def copied_run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(finished_run, tmp_path / "copy"))
