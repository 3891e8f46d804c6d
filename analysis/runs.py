"""Read run directories, whatever state a run was left in.

Only plain JSON and YAML is read; no checkpoint is opened, and no object that a file names is built.
A killed run may have a truncated last line; one that failed early has an unresolved config.
"""

import json
import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from core.errors import reason
from core.records import lines_of, printable, read_record, showable

SUMMARY_FILE = "summary.json"  # marks a run directory; written when a run starts
STUDY_FILE = "study.json"  # marks the directory of a study
PREFLIGHT = "preflight"  # folder of a study with runs of a few steps, which are not results
FINISHED = ("completed", "stopped")
DIVERGED = "diverged"
BROKEN = (DIVERGED, "failed")  # such trials count as the worst value
UNFINISHED = "unfinished"  # still running, or killed
UNREADABLE = "unreadable"  # its config or its summary is damaged
TUNE, REPEAT, UNTUNED = "tune", "repeat", "untuned"  # phases of a study

MAX_METRICS = 1000  # per run
# metrics that a report draws besides the compared one, at up to DRAWN_PARTS points of a run
DRAWN = (("train/", "loss"), ("train_eval/", "loss"), ("optim/", "lr"))
DRAWN_PARTS = 500

Setting = tuple[tuple[str, Any], ...]
Curves = dict[str, NDArray[np.float64]]  # by metric (n, 3): step, seconds, value


class FinishedSummary(BaseModel, strict=True):
    """Fields of a finished run's summary that a report reads, besides its metrics."""

    monitor: str | None
    monitor_mode: str
    steps: int
    skipped_steps: int
    horizon_steps: int
    batch_size: int
    data: str
    num_samples: dict[str, int]
    num_evaluated: dict[str, int] = {}
    synthetic_data: bool
    data_order_hash: str
    initial_weights_hash: str
    model: str
    num_parameters: int
    device: str
    hardware: str
    precision: str
    world_size: int
    num_threads: int
    versions: dict[str, str | None]
    git_commit: str | None
    git_dirty: bool | None


class Length(BaseModel, strict=True):
    """Trainer settings that a report reads."""

    max_epochs: int | None
    max_steps: int | None
    limit_train_steps: int | None
    target: float | None = None


class FinishedConfig(BaseModel, strict=True):
    """Config sections that a report reads."""

    model: dict[str, Any]
    data: dict[str, Any]
    objective: dict[str, Any]
    trainer: Length


class ReportError(Exception):
    """A user error; ``report.py`` prints it as one line."""


@dataclass(eq=False)
class Run:
    """One run: its records and its role in the comparison."""

    path: Path
    name: str  # path relative to the directory given
    summary: dict[str, Any]
    config: dict[str, Any]  # resolved, or as composed if the run failed early
    choices: dict[str, str]  # config group to option, such as optim to sgd_cosine
    curves: Curves  # only of metrics that a report may show
    metrics: set[str]  # names of all recorded ones
    damaged_lines: int
    problems: list[str] = field(default_factory=list)  # errors in reading its summary and config
    candidate: str = ""  # the name under which it is compared
    family: str = ""  # its choices; settings are tuned within a family
    setting: Setting = ()  # its values of the numbers swept in the family
    phase: str = ""  # in a study: TUNE, REPEAT or UNTUNED
    replicate: int | None = None  # the tuning it belongs to, in a study with several
    validation: float | None = None  # its best value
    test: float | None = None

    @property
    def status(self) -> str:
        """How the run ended, or ``unfinished`` or ``unreadable``."""
        status = str(self.summary.get("status", "running"))
        if not self.config or (status in FINISHED and not self.is_whole):
            return UNREADABLE
        return UNFINISHED if status == "running" else status

    @cached_property
    def is_whole(self) -> bool:
        """Whether the records of a finished run have all fields, of the right types."""
        try:
            FinishedSummary.model_validate(self.summary)
            FinishedConfig.model_validate(self.config)
        except ValidationError:
            return False
        return True

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    @property
    def seed(self) -> str:
        return str(self.config.get("seed"))

    @property
    def unit(self) -> str:
        """The independent unit of the tests: the replicate, else the seed."""
        return self.seed if self.replicate is None else f"replicate {self.replicate}"

    @property
    def overrides(self) -> list[str]:
        """The overrides of its command line."""
        return strings(self.summary.get("overrides"))

    @property
    def ended_early(self) -> bool:
        """Whether it was configured to end before its horizon, by a study's rung or a limit."""
        planned, horizon = self.number("planned_steps"), self.number("horizon_steps")
        return planned is not None and horizon is not None and planned < horizon

    @property
    def is_partial(self) -> bool:
        """Whether a study stopped the run early, so that its value is an early one."""
        return self.phase == TUNE and self.ended_early

    def number(self, *keys: str) -> float | None:
        """A finite number of the summary, such as ``number("best", "value")``."""
        value = nested(self.summary, *keys)
        return value if isinstance(value, int | float) and math.isfinite(value) else None

    def points(self, metric: str) -> NDArray[np.float64]:
        """Step, seconds and value of every event that has ``metric``; (n, 3)."""
        return self.curves.get(metric, np.empty((0, 3)))

    def curve(self, metric: str) -> pd.DataFrame:
        """The points with columns step, seconds and value."""
        return pd.DataFrame(self.points(metric), columns=["step", "seconds", "value"])


def read_runs(directories: Iterable[Path], metric: str | None = None) -> list[Run]:
    """Every run below the given directories, in the order of their names.

    Args:
        metric: the one to compare on; None: the one each run monitors.

    Raises:
        ReportError: if a directory does not exist, or there is no run in any.
    """
    runs: dict[Path, Run] = {}
    for directory in directories:
        if not directory.exists():
            raise ReportError(f"{directory}: no such directory")
        if not directory.is_dir():  # DIR/* also matches the files of a sweep
            continue
        for path in find(directory):
            name = path.name if path == directory else str(path.relative_to(directory))
            name = printable(name)
            runs.setdefault(path.resolve(), read_run(path, name, metric))
    if not runs:
        shown = ", ".join(str(directory) for directory in directories)
        if any((directory / STUDY_FILE).exists() for directory in directories):
            raise ReportError(f"{shown}: the study has not started tuning yet")
        raise ReportError(f"{shown}: no run directory in it (none has {SUMMARY_FILE})")
    return sorted(runs.values(), key=lambda run: (len(run.name), run.name))


def find(directory: Path) -> Iterator[Path]:
    """Run directories at or below ``directory``, without preflights; runs are not nested."""
    if (directory / SUMMARY_FILE).exists():
        yield directory
        return
    is_study = (directory / STUDY_FILE).exists()
    for child in sorted(directory.iterdir()):
        is_preflight = is_study and child.name == PREFLIGHT
        if child.is_dir() and not child.is_symlink() and not is_preflight:
            yield from find(child)


def read_run(path: Path, name: str, metric: str | None = None) -> Run:
    """Read one run; a file that is missing or damaged counts as empty."""
    recorded = read_mapping(path / ".hydra" / "hydra.yaml")
    choices = nested(recorded, "hydra", "runtime", "choices")
    problems: list[str] = []
    summary = read_mapping(path / SUMMARY_FILE, problems)
    config = read_mapping(path / "config.yaml", problems)
    compared, horizon = metric or str(summary.get("monitor")), summary.get("horizon_steps")
    part = horizon // DRAWN_PARTS if isinstance(horizon, int) else 1
    curves, metrics, damaged = read_curves(path / "metrics.jsonl", compared, max(part, 1))
    return Run(
        path=path,
        name=name,
        summary=summary,
        config=config or read_mapping(path / ".hydra" / "config.yaml"),
        choices={
            group: str(option)
            for group, option in (choices if isinstance(choices, dict) else {}).items()
            if not group.startswith("hydra/")
        },
        curves=curves,
        metrics=metrics,
        damaged_lines=damaged,
        problems=problems,
    )


def read_mapping(file: Path, problems: list[str] | None = None) -> dict[str, Any]:
    """Read a JSON or YAML mapping, made printable; empty if it is missing or unreadable.

    Args:
        problems: list to which the error of an unreadable file is appended.
    """
    try:
        content = showable(read_record(file))
        if isinstance(content, dict):
            return content
        problem = "no mapping"
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        problem = printable(reason(error))
    if problems is not None:
        problems.append(f"{file.name}: {problem}")
    return {}


def read_curves(file: Path, compared: str, part: int) -> tuple[Curves, set[str], int]:
    """Read the curves a report needs, the names of all metrics, and the number of damaged lines.

    So that hundreds of long runs fit into memory, only ``compared`` and validation metrics are kept
    in full. Metrics that are only drawn keep the first value in every ``part`` updates.
    """
    curves: dict[str, array[float]] = defaultdict(lambda: array("d"))
    names: set[str] = set()
    parts: dict[str, float] = {}  # part of the last kept value, by metric
    damaged = 0
    try:
        for line in lines_of(file):
            try:
                event = json.loads(line)
                if "media" in event:
                    continue
                values = {k: math.nan if v is None else float(v) for k, v in event.items()}
                if len(names | values.keys()) > MAX_METRICS:
                    raise ValueError
            except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
                damaged += 1
                continue
            names |= values.keys()
            step, seconds = (values.get(name, math.nan) for name in ("step", "seconds"))
            for name, value in values.items():
                is_next = is_drawn(name) and step // part != parts.get(name)
                if is_next or name == compared or name.startswith("val/"):
                    curves[name].extend((step, seconds, value))
                    parts[name] = step // part
    except (OSError, ValueError):  # missing, or not a file of this program
        damaged += file.exists()
    shown = {printable(name): points_of(numbers) for name, numbers in curves.items()}
    return shown, set(map(printable, names)), damaged


def points_of(numbers: Sequence[float]) -> NDArray[np.float64]:
    """Points (n, 3) from step, seconds, value, step, ...: the finite ones, with each step once."""
    points = np.array(numbers, dtype=float).reshape(-1, 3)
    points = points[np.isfinite(points).all(axis=1)]
    _, first = np.unique(points[:, 0], return_index=True)
    return points[np.sort(first)]


def is_drawn(metric: str) -> bool:
    return any(metric.startswith(start) and metric.endswith(end) for start, end in DRAWN)


def strings(value: Any) -> list[str]:
    """The strings of a list, where a damaged file may have anything else."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def nested(mapping: Any, *keys: str) -> Any:
    """The value under ``keys``, one level per key; None where a level is missing."""
    for key in keys:
        mapping = mapping.get(key) if isinstance(mapping, dict) else None
    return mapping
