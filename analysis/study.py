"""The record of a study, ``study.json``: which run was a trial of what, and by which protocol.

The study sweeper writes it; a plain sweep has none, and its candidates are told from the configs.
While the study goes on, and after it was killed, the record lacks what has not happened yet.
"""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from analysis.candidates import leaves_of
from analysis.runs import BROKEN, FINISHED, REPEAT, STUDY_FILE, Run, nested, read_mapping
from analysis.wording import listed, metric_value

RUN_NAME = re.compile(r"(\w+)-(tune|repeat)-")  # sgd-tune-003, sgd-repeat-seed101
SPACE_COLUMNS = ["candidate", "setting", "searched", "overrides", "source"]


class Study:
    """What a study set out to do, and its runs.

    Attributes:
        prefix: of its candidates' names, where several studies are compared.
        record: empty if the file is damaged.
    """

    def __init__(self, directory: Path, runs: list[Run]) -> None:
        self.directory, self.runs, self.prefix = directory, runs, ""
        self.record = read_mapping(directory / STUDY_FILE)
        try:
            self.entries = {entry["run_dir"]: entry for entry in self.record.get("runs", [])}
            candidates = nested(self.record, "protocol", "candidates") or {}
            self.candidates = {name: node for name, node in candidates.items() if node is not None}
        except (KeyError, TypeError, AttributeError):
            self.record, self.entries, self.candidates = {}, {}, {}
        self.protocol: dict[str, Any] = self.record["protocol"] if self.candidates else {}

    def place(self) -> None:
        """Give every run its place: from the record, else from its name."""
        for run in self.runs:
            name = run.path.resolve().name
            if entry := self.entries.get(name):
                candidate, run.phase = entry["candidate"], entry["phase"]
                point = entry["params"]
            elif match := RUN_NAME.match(name):
                candidate, run.phase = match.groups()
                leaves = leaves_of(run)
                given = {override.split("=")[0] for override in run.overrides}
                space = nested(self.candidates, candidate, "space") or {}
                point = {key: leaves[key] for key in space if key in leaves and key in given}
            else:
                continue
            run.setting = tuple(
                (key, json.dumps(value) if isinstance(value, list) else value)
                for key, value in point.items()
            )
            run.candidate = run.family = f"{self.prefix}{candidate}"

    def unfinished(self) -> str:
        """A sentence saying that the study is not over; empty if it is."""
        chosen = self.record.get("best") or self.candidates
        seeds = self.protocol.get("repeat_seeds", [])
        awaited = {(f"{self.prefix}{name}", str(seed)) for name in chosen for seed in seeds}
        ended = {
            (run.candidate, run.seed)
            for run in self.runs
            if run.phase == REPEAT and run.status in (*FINISHED, *BROKEN)
        }
        # older records do not say so themselves
        if self.record.get("finished", bool(self.entries) and awaited <= ended):
            return ""
        said = f"The study {self.directory.name} is not finished"
        if awaited:
            said += f": {len(awaited & ended)} of {len(awaited)} repeats have ended"
        if not ended:
            said += "; its trials are shown, and a candidate's best setting may still change"
        return f"{said}."

    def facts(self) -> list[str]:
        """Budgets, seeds and what halving saved, in words."""
        protocol, compute = self.protocol, self.record.get("tuning_compute")
        if not protocol:
            return []
        facts = [
            f"{protocol['trials']} trials for each candidate, sampler {protocol['sampler']} "
            f"(seed {protocol['sampler_seed']})",
            f"tuned on seeds {protocol['tune_seeds']}, the best setting repeated on fresh seeds "
            f"{protocol['repeat_seeds']}",
        ]
        if (halving := protocol["halving"]) and compute and self.record.get("finished", True):
            facts += [
                f"successive halving at {halving['rungs']} of the horizon, {halving['keep']} of "
                f"the trials go on: {compute['saved_fraction']:.0%} of the tuning steps saved "
                f"({compute['steps']:,} in place of {compute['steps_without_halving']:,})",
                overtaken(self.record),
                *audit(self.record),
            ]
        return facts

    def spaces(self) -> list[list[str]]:
        """Rows of ``SPACE_COLUMNS``, one for each tuned setting."""
        return [
            [
                f"{self.prefix}{name}",
                key,
                searched(dimension),
                " ".join(candidate.get("overrides") or []),
                candidate.get("source") or "",
            ]
            for name, candidate in self.candidates.items()
            for key, dimension in (candidate.get("space") or {"–": "nothing"}).items()
        ]


def overtaken(record: dict[str, Any]) -> str:
    """Whether the trial that led at the first rung was also the best in the end.

    It tells how far early values can be trusted; what pruned trials would have reached is
    :func:`audit`'s.
    """
    first: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for entry in record["runs"]:
        values = [rung["value"] for rung in entry.get("rungs", ()) if rung["value"] is not None]
        if values:
            first[entry["candidate"]].append((sign(record) * values[0], -entry["trial"]))
    changed = [
        name
        for name, reached in first.items()
        if name in record["best"] and record["best"][name]["trial"] != -max(reached)[1]
    ]
    if not changed:
        return "the trial that led at the first rung was the best in the end, for every candidate"
    return f"the leader of the first rung was overtaken later, for {', '.join(changed)}"


def audit(record: dict[str, Any]) -> list[str]:
    """Whether halving changed the winner: known once the pruned trials were run to the end."""
    pruned = [entry for entry in record["runs"] if entry["status"] == "pruned"]
    if unknown := sum(entry.get("audited") is None for entry in pruned):
        return [
            f"whether one of the {unknown} pruned runs would have won is not known; with "
            "hydra.sweeper.halving.audit=true the same command runs them to the end"
        ]
    chosen = {name: sign(record) * best["value"] for name, best in record["best"].items()}
    if not pruned or not chosen:
        return []
    unpruned = dict(chosen)
    for entry in pruned:
        if (name := entry["candidate"]) in unpruned:
            unpruned[name] = max(unpruned[name], sign(record) * entry["audited"])

    def shown(value: float) -> str:
        return metric_value(record["monitor"], sign(record) * value)

    better = [
        f"{name} ({shown(unpruned[name])} in place of {shown(value)})"
        for name, value in chosen.items()
        if unpruned[name] > value
    ]
    outcome = (
        f"another setting would have been chosen for {listed(better)}"
        if better
        else "the same settings would have been chosen"
    )
    winner, would_be = max(chosen, key=chosen.__getitem__), max(unpruned, key=unpruned.__getitem__)
    also = "with and without halving" if winner == would_be else f"without halving {would_be}"
    return [
        f"audit: the {len(pruned)} pruned runs were run to the end afterwards; without halving, "
        f"{outcome}",
        f"best in tuning: {winner}, {also}",
    ]


def sign(record: dict[str, Any]) -> int:
    """The factor that makes a larger value a better one."""
    return -1 if record["monitor_mode"] == "min" else 1


def searched(node: Any) -> str:
    """A dimension of a search space in words: ``0.001 to 1, logarithmic``."""
    if isinstance(node, dict) and "choices" in node:
        node = node["choices"]
    if isinstance(node, list):
        return "one of " + ", ".join(map(str, node))
    if not isinstance(node, dict):
        return str(node)
    words = [f"{node.get('low')} to {node.get('high')}"]
    words += ["logarithmic"] if node.get("log") else []
    words += ["of 1 minus the value"] if node.get("one_minus") else []
    if node.get("when"):
        words.append("when " + ", ".join(f"{key}={value}" for key, value in node["when"].items()))
    return ", ".join(words)
