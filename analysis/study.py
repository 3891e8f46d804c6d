"""The record of a study, ``study.json``: its protocol and the role of every run.

The study sweeper writes it before the first run and updates it as the study goes on. A plain sweep
has none; its candidates are inferred from the configs.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, model_validator

from analysis.runs import (
    BROKEN,
    FINISHED,
    REPEAT,
    STUDY_FILE,
    TUNE,
    UNTUNED,
    ReportError,
    Run,
    read_mapping,
)
from analysis.words import listed, metric_value

TRIALS_A_NUMBER = 5  # trials per tuned number; with fewer, the best is mostly luck


class Halving(BaseModel, strict=True):
    rungs: list[float]
    keep: float


class Compute(BaseModel, strict=True):
    """The cost of tuning, in updates."""

    steps: int
    steps_without_halving: int
    saved_fraction: float


class Candidate(BaseModel, strict=True):
    space: dict[str, Any] | None = None
    overrides: list[str] | None = None
    source: str | None = None


class Protocol(BaseModel, strict=True):
    name: str
    candidates: dict[str, Candidate | None]
    replicates: int
    trials: int
    seeds_per_replicate: int
    sampler: str
    halving: Halving | None


class Entry(BaseModel, strict=True):
    """The role of a run in the study."""

    run_dir: str
    phase: Literal["tune", "repeat", "untuned"]
    candidate: str
    replicate: int
    params: dict[str, Any]
    status: str | None
    trial: int | None = None
    audited: float | None = None

    @model_validator(mode="after")
    def check_trial(self) -> "Entry":
        if self.phase == TUNE and self.trial is None:
            raise ValueError("a trial has no number")
        return self


class Best(BaseModel, strict=True):
    candidate: str
    replicate: int
    value: float


class StudyRecord(BaseModel, strict=True):
    """The fields of ``study.json`` that a report reads."""

    protocol: Protocol
    runs: list[Entry]
    finished: bool
    best: list[Best] = []
    at_bounds: dict[str, dict[str, str]] = {}
    monitor: str = ""
    monitor_mode: str = ""
    tuning_compute: Compute | None = None


class Study:
    """The protocol of a study, and its runs.

    Attributes:
        prefix: prepended to its candidates' names if several studies are compared.

    Raises:
        ReportError: if its record cannot be read.
    """

    def __init__(self, directory: Path, runs: list[Run]) -> None:
        self.directory, self.runs, self.prefix = directory, runs, ""
        record = read_mapping(directory / STUDY_FILE)
        if not record:
            raise ReportError(
                f"{directory / STUDY_FILE} is damaged: rerun the study with "
                f"hydra.sweep.dir={directory} to write it again"
            )
        try:
            self.record = StudyRecord.model_validate(record)
        except ValidationError as error:
            first = error.errors()[0]
            entry = ".".join(map(str, first["loc"]))
            raise ReportError(
                f"{directory / STUDY_FILE} is damaged or from another version: "
                f"{entry}: {first['msg']}"
            ) from error
        self.protocol = self.record.protocol
        candidates = self.protocol.candidates
        self.candidates = {name: node for name, node in candidates.items() if node is not None}

    def place(self) -> None:
        """Assign every run its role; repeats of a superseded best setting have none."""
        entries = {entry.run_dir: entry for entry in self.record.runs}
        for run in self.runs:
            if entry := entries.get(run.path.resolve().name):
                run.candidate = run.family = f"{self.prefix}{entry.candidate}"
                run.phase = entry.phase
                if run.phase == UNTUNED:
                    run.candidate += ", untuned"
                if self.protocol.replicates > 1:
                    run.replicate = entry.replicate
                run.setting = tuple(
                    (key, json.dumps(value) if isinstance(value, list | dict) else value)
                    for key, value in entry.params.items()
                )

    def unfinished(self) -> str:
        """A sentence that the study is not finished; empty if it is."""
        if self.record.finished:
            return ""
        ended = sum(run.phase == REPEAT and run.status in FINISHED + BROKEN for run in self.runs)
        of_candidate = self.protocol.replicates * self.protocol.seeds_per_replicate
        planned = len(self.candidates) * of_candidate
        said = f"The study {self.directory.name} is not finished"
        if planned:
            said += f": {ended} of {planned} repeats have ended"
        if not ended:
            said += "; the report shows its trials, and the best settings may still change"
        return f"{said}."

    def facts(self) -> Iterator[str]:
        """What halving saved, in words."""
        halving, compute = self.protocol.halving, self.record.tuning_compute
        if not halving or not compute or not self.record.finished:
            return
        yield (
            f"successive halving at {halving.rungs} of the horizon, keeping {halving.keep} of "
            f"the trials: {compute.saved_fraction:.0%} of the tuning updates saved "
            f"({compute.steps:,} instead of {compute.steps_without_halving:,})"
        )
        pruned = [entry for entry in self.record.runs if entry.status == "pruned"]
        if unknown := sum(entry.audited is None for entry in pruned):
            yield (
                f"whether any of the {unknown} pruned trials would have won is unknown; rerun the "
                "study with hydra.sweeper.halving.audit=true to run them to the end"
            )

    @property
    def is_extended(self) -> bool:
        """Whether search spaces were widened and every candidate was tuned again."""
        tuned = [entry.trial or 0 for entry in self.record.runs if entry.phase == TUNE]
        return max(tuned, default=0) >= self.protocol.trials

    @property
    def trials(self) -> int:
        """Number of trials per candidate and replicate."""
        return self.protocol.trials * (1 + self.is_extended)

    def doubts(self) -> Iterator[str]:
        """Weaknesses of the study: small budgets, best settings at bounds, a failed audit."""
        numbers = {
            f"{self.prefix}{name}": len(candidate.space)
            for name, candidate in self.candidates.items()
            if candidate.space
        }
        if few := [
            f"{name} ({n})" for name, n in numbers.items() if self.trials < TRIALS_A_NUMBER * n
        ]:
            yield (
                f"Each tuning had {self.trials} trials, fewer than {TRIALS_A_NUMBER} per tuned "
                f"hyperparameter for {listed(few)}: a larger budget may change the ranking."
            )
        if len(set(numbers.values())) > 1:
            counts = [f"{name} {n}" for name, n in numbers.items()]
            yield f"Equal trials for unequal numbers of tuned hyperparameters: {listed(counts)}."
        if bounds := [
            f"the {key} of {self.prefix}{name} ({side})"
            for name, sides in self.record.at_bounds.items()
            for key, side in sides.items()
        ]:
            may_extend = self.protocol.sampler != "grid" and not self.is_extended
            yield (
                "Most tunings ended within a tenth of the search range from a bound, so a better "
                f"setting may lie beyond it: {listed(bounds)}."
                + " Rerun the study with hydra.sweeper.extend=true to search there."
                * may_extend
            )
        yield from audit(self.record)

    def spaces(self) -> list[list[str]]:
        """One row per tuned setting: candidate, key, search space, overrides, source."""
        return [
            [
                f"{self.prefix}{name}",
                key,
                json.dumps(node).replace('"', ""),
                " ".join(candidate.overrides or []),
                candidate.source or "",
            ]
            for name, candidate in self.candidates.items()
            for key, node in (candidate.space or {"–": "nothing"}).items()
        ]


def audit(record: StudyRecord) -> Iterator[str]:
    """Whether halving changed the selected setting; known if pruned trials were audited."""
    num_audited = sum(entry.audited is not None for entry in record.runs)
    better = max if record.monitor_mode == "max" else min
    changed = set()
    for best in record.best:
        rivals = [
            entry.audited
            for entry in record.runs
            if entry.audited is not None
            and (entry.candidate, entry.replicate) == (best.candidate, best.replicate)
        ]
        if better([best.value, *rivals]) != best.value:
            at = [metric_value(record.monitor, value) for value in (better(rivals), best.value)]
            changed.add(f"{best.candidate} ({at[0]} instead of {at[1]})")
    if changed:
        yield (
            f"Halving changed the selected setting: of the {num_audited} pruned trials that were "
            f"later run to the end, one was better for {listed(sorted(changed))}."
        )
