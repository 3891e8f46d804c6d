"""The runs of a study: started through any Hydra launcher, read from the files they write.

A study and its runs share only files: a run gets a command line and writes ``summary.json``. So
the same study works in one process, in several, and on a cluster.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.plugins.launcher import Launcher

from core.files import write_json
from core.progress import Monitor
from core.run_directory import read_summary

Summary = dict[str, Any]
FINAL = ("failed", "diverged", "stopped")
STUDY_FILE = "study.json"


@dataclass(frozen=True)
class Run:
    """A run directory and the overrides that define its run.

    Attributes:
        name: the run directory, relative to the sweep directory.
        limit_steps: stop at this step, to be continued later; None: run to the end.
    """

    name: str
    overrides: tuple[str, ...]
    limit_steps: int | None = None

    def is_done(self, summary: Summary) -> bool:
        """Whether there is nothing left to do; failed runs are not retried."""
        status = summary.get("status")
        if status in ("completed", "pruned") and self.limit_steps is not None:
            end = min(self.limit_steps, summary.get("horizon_steps", self.limit_steps))
            return summary.get("steps", 0) >= end
        return status == "completed" or status in FINAL

    def command(self) -> list[str]:
        command = [*self.overrides, "resume=auto", f"hydra.sweep.subdir={self.name}"]
        if self.limit_steps is not None:
            command.append(f"trainer.limit_train_steps={self.limit_steps}")
        return command


@dataclass
class Jobs:
    """Starts the runs of a study and reads their results.

    Args:
        launcher: any Hydra launcher.
        directory: the sweep directory.
        arguments: overrides that all runs share.
        monitor: the metric by which runs are judged.
        on_launch: called before any runs start.
    """

    launcher: Launcher
    directory: Path
    arguments: tuple[str, ...]
    monitor: Monitor
    on_launch: Callable[[], None] = lambda: None
    launched: int = 0

    def run(self, runs: list[Run]) -> dict[str, Summary]:
        """Launch the unfinished ``runs`` together; returns the summaries of all, by name.

        A launcher may lose a process, and others with it. Lost runs are retried once, each alone;
        a run that is lost again has failed.
        """
        self.launch([run for run in runs if not run.is_done(self.summary(run))])
        for run in runs:
            if not run.is_done(self.summary(run)):
                self.launch([run])
            if not run.is_done(self.summary(run)):
                self.amend(run, status="failed", error="the run's process died")
        return {run.name: self.summary(run) for run in runs}

    def launch(self, runs: list[Run]) -> None:
        if not runs:
            return
        self.on_launch()
        commands = [[*self.arguments, *run.command()] for run in runs]
        first, self.launched = self.launched, self.launched + len(runs)
        try:
            self.launcher.launch(commands, initial_job_idx=first)
        except Exception as error:  # launchers raise many types when they lose a process
            print(f"the launcher failed: {type(error).__name__}: {error}", file=sys.stderr)

    def summary(self, run: Run) -> Summary:
        return read_summary(self.directory / run.name / "summary.json")

    def values_of(self, runs: list[Run]) -> dict[str, float]:
        """The monitored metric's best value in each run; launches the unfinished ones."""
        return {name: value_of(of_run, self.monitor) for name, of_run in self.run(runs).items()}

    def mark_pruned(self, run: Run) -> None:
        """Record that the study pruned a run that could have continued."""
        if self.summary(run).get("status") == "completed":
            self.amend(run, status="pruned")

    def amend(self, run: Run, **news: str) -> None:
        """Add entries to a run's summary."""
        file = self.directory / run.name / "summary.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.summary(run) | news, file)


def value_of(summary: Summary, monitor: Monitor) -> float:
    """The best value of a run; the worst possible one if it failed or diverged."""
    best = summary.get("best")
    if summary.get("status") in ("failed", "diverged") or not best or best["value"] is None:
        return monitor.worst
    return float(best["value"])


def read_study(directory: Path) -> dict[str, Any]:
    """Read ``study.json``; empty if it is missing or damaged."""
    return read_summary(directory / STUDY_FILE)


def update_study(directory: Path, news: dict[str, Any]) -> None:
    """Set entries of ``study.json``."""
    write_json(read_study(directory) | news, directory / STUDY_FILE)
