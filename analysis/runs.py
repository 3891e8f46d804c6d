"""Read run directories: plain JSON and YAML, whatever state a run was left in.

Nothing here builds an object that a file names, and no checkpoint is opened. A run that was killed
has half a last line and no summary; one that failed early has a summary and nothing else.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

MARKS = (".hydra", "metrics.jsonl", "summary.json")  # any of them makes a directory a run
STUDY_FILE = "study.json"  # makes a directory a study's
PREFLIGHT = "preflight"  # of a study: runs of a few steps, which are no results
FINISHED = ("completed", "stopped")
DIVERGED = "diverged"
BROKEN = (DIVERGED, "failed")  # a trial that ended so counts as the worst value
UNFINISHED = "unfinished"  # still running, or killed: no summary, or one that says "running"
PLAIN, TUNE, REPEAT = "", "tune", "repeat"

Setting = tuple[tuple[str, Any], ...]


class ReportError(Exception):
    """A mistake a person can correct: ``report.py`` prints it as one line."""


@dataclass(eq=False)
class Run:
    """One run as its records show it, and its place in the comparison."""

    path: Path
    name: str  # the path below the directory that was asked for
    summary: dict[str, Any]
    config: dict[str, Any]  # resolved; as composed if the run failed before it wrote its own
    choices: dict[str, str]  # config group to option, such as optim to sgd_cosine
    overrides: list[str]  # of the command line
    events: pd.DataFrame  # one row per event; step, epoch, seconds and one column per metric
    damaged_lines: int
    candidate: str = ""  # what it is compared as
    family: str = ""  # the choices alone, within which settings are tuned
    setting: Setting = ()  # the swept numbers of the family
    phase: str = PLAIN  # in a study, tune or repeat
    validation: float | None = None  # the best it reached
    test: float | None = None

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
    def ended_early(self) -> bool:
        """Whether it ended before its horizon: pruned, waiting at a rung of a study, or limited."""
        horizon = self.number("horizon_steps")
        if horizon is None:
            return self.status == "pruned"
        limit = finite(nested(self.config, "trainer", "limit_train_steps"))
        return limit is not None and limit < horizon

    @property
    def is_partial(self) -> bool:
        """Whether a study, or another tuner, cut the run short; its value is an early one."""
        return (self.phase == TUNE or self.status == "pruned") and self.ended_early

    def number(self, *keys: str) -> float | None:
        """A finite number of the summary, such as ``number("best", "value")``; else None."""
        return finite(nested(self.summary, *keys))

    def curve(self, metric: str) -> pd.DataFrame:
        """Columns step, seconds and value of every event with a finite value of ``metric``."""
        curve = self.events.reindex(columns=["step", "seconds", metric])
        curve = curve.set_axis(["step", "seconds", "value"], axis=1).dropna()
        # a resumed run may have recorded a step twice
        return curve.drop_duplicates("step", keep="last").sort_values("step", ignore_index=True)

    def final(self, metric: str) -> float | None:
        """A metric at the end of the run."""
        if (value := self.number(metric)) is not None:
            return value
        values = self.curve(metric)["value"]
        return None if values.empty else float(values.iloc[-1])


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
    """Read one run; a file that is missing or damaged counts as empty."""
    hydra = read_mapping(path / ".hydra" / "hydra.yaml")
    choices = nested(hydra, "hydra", "runtime", "choices")
    summary = read_mapping(path / "summary.json")
    overrides = summary.get("overrides") or nested(hydra, "hydra", "overrides", "task")
    events, damaged = read_events(path / "metrics.jsonl")
    return Run(
        path=path,
        name=name,
        summary=summary,
        config=read_mapping(path / "config.yaml") or read_mapping(path / ".hydra" / "config.yaml"),
        choices={
            str(group): str(option)
            for group, option in (choices if isinstance(choices, dict) else {}).items()
            if not str(group).startswith("hydra/")
        },
        overrides=[str(each) for each in overrides] if isinstance(overrides, list) else [],
        events=events,
        damaged_lines=damaged,
    )


def read_mapping(file: Path) -> dict[str, Any]:
    """A JSON or YAML mapping; empty where there is none that can be read."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where libyaml is there
    parse = json.loads if file.suffix == ".json" else partial(yaml.load, Loader=loader)
    try:
        content = parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def read_events(file: Path) -> tuple[pd.DataFrame, int]:
    """The events with a step, as numbers, and how many lines were damaged."""
    rows, damaged = [], 0
    lines = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    for line in filter(str.strip, lines.splitlines()):
        try:
            event = json.loads(line)
            step = finite(event["step"])
        except (ValueError, KeyError, TypeError):
            step = None
        if step is None:
            damaged += 1
        else:
            rows.append({key: finite(value) for key, value in event.items() if key != "media"})
    return pd.DataFrame(rows, dtype=float), damaged


def nested(mapping: Any, *keys: str) -> Any:
    """The value under ``keys``, one level per key; None where a level is missing."""
    for key in keys:
        mapping = mapping.get(key) if isinstance(mapping, dict) else None
    return mapping


def finite(value: Any) -> float | None:
    """A finite number as float; None for everything else, NaN and infinity among it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
