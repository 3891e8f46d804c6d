"""Fixtures that write sweeps without training and run report.py on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import report
from tests.analysis.run_directories import write_run


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[..., Path]:
    """``sweep(optims, seeds, lrs, **run)`` writes a run per combination and returns the folder."""

    def make(
        optims: tuple[str, ...] = ("sgd_cosine", "adam_constant"),
        seeds: range = range(5),
        lrs: tuple[float, ...] = (0.1,),
        **run: Any,
    ) -> Path:
        folder = tmp_path / "sweep"
        jobs = [(optim, lr, seed) for optim in optims for lr in lrs for seed in seeds]
        for job, (optim, lr, seed) in enumerate(jobs):
            write_run(folder / str(job), optim, seed, lr, **run)
        return folder

    return make


@pytest.fixture(autouse=True)
def _stub_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the figures, which are slow, unless a test uses the fixture ``draw_figures``."""
    if "draw_figures" not in request.fixturenames:
        monkeypatch.setattr("analysis.page.inline_svg", lambda figure, palette: "")


@pytest.fixture
def draw_figures() -> None:
    """Have the figures of a page drawn; for tests that inspect them."""


@pytest.fixture
def report_error(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """``report_error(sweep, ...)`` runs a report that must fail and returns its error output."""

    def run(*arguments: object) -> str:
        assert report.main([str(argument) for argument in arguments]) == 1
        return capsys.readouterr().err

    return run


@pytest.fixture
def run_report(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, pd.DataFrame]]:
    """``run_report(sweep, ...)`` returns standard output and ``report.csv`` by candidate."""

    def run(*arguments: object) -> tuple[str, pd.DataFrame]:
        assert report.main([str(argument) for argument in arguments]) == 0
        out = capsys.readouterr().out
        file = next(line for line in out.splitlines() if line.endswith("report.csv"))
        return " ".join(out.split()), pd.read_csv(file).set_index("candidate")

    return run
