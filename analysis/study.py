"""The record of a study, ``study.json``: which run was a trial of what, and by which protocol.

The study sweeper writes it before any run begins, and again as the study goes on; a plain sweep has
none, and its candidates are told from the configs.
"""

import json
from pathlib import Path
from typing import Any

from analysis.runs import BROKEN, FINISHED, REPEAT, STUDY_FILE, ReportError, Run, read_mapping
from analysis.words import listed, metric_value


class Study:
    """What a study set out to do, and its runs.

    Attributes:
        prefix: of its candidates' names, where several studies are compared.

    Raises:
        ReportError: its record cannot be read.
    """

    def __init__(self, directory: Path, runs: list[Run]) -> None:
        self.directory, self.runs, self.prefix = directory, runs, ""
        self.record = read_mapping(directory / STUDY_FILE)
        if not self.record:
            raise ReportError(
                f"{directory / STUDY_FILE} is damaged: the study's command with "
                f"hydra.sweep.dir={directory} writes it anew"
            )
        self.protocol: dict[str, Any] = self.record["protocol"]
        candidates = self.protocol["candidates"]
        self.candidates = {name: node for name, node in candidates.items() if node is not None}

    def place(self) -> None:
        """Give every run its place."""
        entries = {entry["run_dir"]: entry for entry in self.record["runs"]}
        for run in self.runs:
            if entry := entries.get(run.path.resolve().name):
                run.candidate = run.family = f"{self.prefix}{entry['candidate']}"
                run.phase = entry["phase"]
                run.setting = tuple(
                    (key, json.dumps(value) if isinstance(value, list) else value)
                    for key, value in entry["params"].items()
                )

    def unfinished(self) -> str:
        """A sentence saying that the study is not over; empty if it is."""
        if self.record["finished"]:
            return ""
        ended = sum(run.phase == REPEAT and run.status in FINISHED + BROKEN for run in self.runs)
        repeated = self.record.get("best") or self.candidates
        planned = len(repeated) * len(self.protocol["repeat_seeds"])
        said = f"The study {self.directory.name} is not finished"
        if planned:
            said += f": {ended} of {planned} repeats have ended"
        if not ended:
            said += "; its trials are shown, and a candidate's best setting may still change"
        return f"{said}."

    def facts(self) -> list[str]:
        """What halving saved and whether it changed the outcome, in words."""
        halving, compute = self.protocol["halving"], self.record.get("tuning_compute")
        if not halving or not compute or not self.record["finished"]:
            return []
        return [
            f"successive halving at {halving['rungs']} of the horizon, {halving['keep']} of "
            f"the trials go on: {compute['saved_fraction']:.0%} of the tuning steps saved "
            f"({compute['steps']:,} in place of {compute['steps_without_halving']:,})",
            *audit(self.record),
        ]

    def spaces(self) -> list[list[str]]:
        """For each tuned setting: candidate, key, what was searched, overrides, source."""
        return [
            [
                f"{self.prefix}{name}",
                key,
                json.dumps(node).replace('"', ""),
                " ".join(candidate.get("overrides") or []),
                candidate.get("source") or "",
            ]
            for name, candidate in self.candidates.items()
            for key, node in (candidate.get("space") or {"–": "nothing"}).items()
        ]


def audit(record: dict[str, Any]) -> list[str]:
    """Whether halving changed the winner: known once the pruned trials were run to the end."""
    pruned = [entry for entry in record["runs"] if entry["status"] == "pruned"]
    if unknown := sum(entry["audited"] is None for entry in pruned):
        return [
            f"whether one of the {unknown} pruned runs would have won is not known; with "
            "hydra.sweeper.halving.audit=true the same command runs them to the end"
        ]
    chosen = {name: best["value"] for name, best in record["best"].items()}
    if not pruned or not chosen:
        return []
    metric, better = record["monitor"], max if record["monitor_mode"] == "max" else min
    unpruned = {
        name: better(value, *(e["audited"] for e in pruned if e["candidate"] == name))
        for name, value in chosen.items()
    }
    changed = [
        f"{name} ({metric_value(metric, unpruned[name])} in place of {metric_value(metric, value)})"
        for name, value in chosen.items()
        if unpruned[name] != value
    ]
    outcome = (
        f"another setting would have been chosen for {listed(changed)}"
        if changed
        else "the same settings would have been chosen"
    )
    winner, would_be = (
        better(chosen, key=chosen.__getitem__),
        better(unpruned, key=unpruned.__getitem__),
    )
    also = "with and without halving" if winner == would_be else f"without halving {would_be}"
    return [
        f"audit: the {len(pruned)} pruned runs were run to the end afterwards; without halving, "
        f"{outcome}",
        f"best in tuning: {winner}, {also}",
    ]
