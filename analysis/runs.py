"""Read run directories: plain JSON and YAML, whatever state a run was left in.

Nothing here builds an object that a file names, and no checkpoint is opened. A run that was killed
has half a last line and no summary; one that failed early has a summary and nothing else.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from analysis.errors import ReportError

MARKS = (".hydra", "metrics.jsonl", "summary.json")  # any of them makes a directory a run
STUDY_FILE = "study.json"  # makes a directory a study's
PREFLIGHT = "preflight"  # of a study: runs of a few steps, which are no results
FINISHED = ("completed", "stopped")
UNFINISHED = "unfinished"  # still running, or killed: no summary, or one that says "running"


@dataclass(frozen=True, eq=False)
class Run:
    """One run as its records show it."""

    path: Path
    name: str  # the path below the directory that was asked for
    summary: dict[str, Any]
    config: dict[str, Any]  # resolved; as composed if the run failed before it wrote its own
    choices: dict[str, str]  # group -> option, such as optim -> sgd_cosine
    overrides: list[str]  # of the command line
    events: pd.DataFrame  # one row per event; step, epoch, seconds and one column per metric
    damaged_lines: int

    @property
    def status(self) -> str:
        status = str(self.summary.get("status") or UNFINISHED)
        return UNFINISHED if status == "running" else status

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    @property
    def seed(self) -> str:
        return str(self.summary.get("seed", self.config.get("seed")))

    @property
    def monitor(self) -> tuple[str, str] | None:
        """The metric that chose its checkpoint, and ``max`` or ``min``; None if it had none."""
        for record in (self.summary, self.config):
            mode = str(record.get("monitor_mode", "max"))
            if (name := record.get("monitor")) and mode in ("max", "min"):
                return str(name), mode
        return None

    @property
    def is_partial(self) -> bool:
        """Whether it ended before its horizon: pruned, or waiting at a rung of a study."""
        horizon = self.number("horizon_steps")
        if horizon is None:
            return self.status == "pruned"
        limit = finite(nested(self.config, "trainer", "limit_train_steps"))
        return limit is not None and limit < horizon

    def number(self, *keys: str) -> float | None:
        """A finite number of the summary, such as ``number("best", "value")``; else None."""
        return finite(nested(self.summary, *keys))

    def curve(self, metric: str) -> pd.DataFrame:
        """Columns step, seconds and value of every event with a finite value of ``metric``."""
        if metric not in self.events:
            return pd.DataFrame({"step": [], "seconds": [], "value": []}, dtype=float)
        columns = self.events[["step", "seconds", metric]].set_axis(
            ["step", "seconds", "value"], axis=1
        )
        # a resumed run may have recorded a step twice
        kept = columns.dropna().drop_duplicates("step", keep="last")
        return kept.sort_values("step", ignore_index=True)


def read_runs(directories: Iterable[Path]) -> list[Run]:
    """Every run below the given directories, in the order of their names.

    Raises:
        ReportError: a directory does not exist, or holds no run at all.
    """
    runs: dict[Path, Run] = {}
    for directory in directories:
        if not directory.is_dir():
            raise ReportError(f"{directory}: no such directory")
        for path in find(directory):
            name = path.name if path == directory else str(path.relative_to(directory))
            runs.setdefault(path.resolve(), read_run(path, name))
    if not runs:
        shown = ", ".join(str(directory) for directory in directories)
        if any((directory / STUDY_FILE).exists() for directory in directories):
            raise ReportError(f"{shown}: the study has not begun to tune")
        raise ReportError(f"{shown}: no run directory in it (none has {' or '.join(MARKS)})")
    return sorted(runs.values(), key=lambda run: (len(run.name), run.name))


def find(directory: Path) -> Iterator[Path]:
    """The run directories at or below ``directory``; runs hold no runs, preflights no results."""
    if any((directory / mark).exists() for mark in MARKS):
        yield directory
        return
    is_study = (directory / STUDY_FILE).exists()
    for child in sorted(directory.iterdir()):
        is_preflight = is_study and child.name == PREFLIGHT
        if child.is_dir() and not child.is_symlink() and not is_preflight:
            yield from find(child)


def read_run(path: Path, name: str) -> Run:
    """What is left of one run; a file that is missing or damaged counts as empty."""
    hydra = read_yaml(path / ".hydra" / "hydra.yaml")
    choices = nested(hydra, "hydra", "runtime", "choices")
    summary = read_json(path / "summary.json")
    overrides = summary.get("overrides") or nested(hydra, "hydra", "overrides", "task")
    events, damaged = read_events(path / "metrics.jsonl")
    return Run(
        path=path,
        name=name,
        summary=summary,
        config=read_yaml(path / "config.yaml") or read_yaml(path / ".hydra" / "config.yaml"),
        choices={
            str(group): str(option)
            for group, option in (choices if isinstance(choices, dict) else {}).items()
            if not str(group).startswith("hydra/")
        },
        overrides=[str(each) for each in overrides] if isinstance(overrides, list) else [],
        events=events,
        damaged_lines=damaged,
    )


def read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def read_yaml(file: Path) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where libyaml is there
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def read_events(file: Path) -> tuple[pd.DataFrame, int]:
    """The events with a step, as numbers, and how many lines were damaged."""
    rows, damaged = [], 0
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in filter(str.strip, lines):
        try:
            event = json.loads(line)
            step = finite(event["step"])
        except (ValueError, KeyError, TypeError):
            step = None
        if step is None:
            damaged += 1
            continue
        rows.append({key: finite(value) for key, value in event.items() if key != "media"})
    events = pd.DataFrame(rows, dtype=float)
    for column in ("step", "seconds"):
        if column not in events:
            events[column] = np.nan
    return events, damaged


def nested(mapping: Any, *keys: str) -> Any:
    """What stands under ``keys``, one in the other; None where there is nothing of the kind."""
    for key in keys:
        mapping = mapping.get(key) if isinstance(mapping, dict) else None
    return mapping


def finite(value: Any) -> float | None:
    """A finite number as float; None for everything else, NaN and infinity among it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
