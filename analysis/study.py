"""The record of a study, ``study.json``: which run was a trial of what, and by which protocol.

The study sweeper writes it; a plain sweep has none, and its candidates are told from the configs.
While the study goes on, and after it was killed, the record lacks what has not happened yet.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from analysis.candidates import REPEAT, Member, Setting, flat
from analysis.comparison import BROKEN
from analysis.runs import FINISHED, Run, finite, nested
from analysis.wording import metric_value

RUN_NAME = re.compile(r"(\w+)-(tune|repeat)-")  # sgd-tune-003, sgd-repeat-seed101
SPACE_COLUMNS = ["candidate", "setting", "searched", "overrides", "source"]


@dataclass(frozen=True)
class Study:
    """What a study set out to do, and the place of each of its runs."""

    directory: Path
    record: dict[str, Any]

    @cached_property
    def entries(self) -> dict[str, dict[str, Any]]:
        """What is on record of a run, by the name of its directory."""
        runs = self.record.get("runs")
        return {
            str(entry["run_dir"]): entry
            for entry in (runs if isinstance(runs, list) else [])
            if isinstance(entry, dict) and {"run_dir", "candidate", "phase"} <= set(entry)
        }

    @property
    def protocol(self) -> dict[str, Any]:
        found = self.record.get("protocol")
        return found if isinstance(found, dict) else {}

    @property
    def candidates(self) -> dict[str, dict[str, Any]]:
        found = self.protocol.get("candidates")
        nodes = found if isinstance(found, dict) else {}
        return {name: node for name, node in nodes.items() if isinstance(node, dict)}

    def member(self, run: Run) -> Member | None:
        """The place of a run: from the record, else from its name; None if it has none."""
        name = run.path.resolve().name
        if entry := self.entries.get(name):
            candidate, phase = str(entry["candidate"]), str(entry["phase"])
            setting = tuple((entry.get("params") or {}).items())
        elif match := RUN_NAME.match(name):
            candidate, phase = match.groups()
            setting = self.setting(run, candidate)
        else:
            return None
        return Member(run, candidate, candidate, setting, phase)

    def setting(self, run: Run, candidate: str) -> Setting:
        """The point of the candidate's space that a run was given."""
        leaves = {**flat(run.config), **run.choices}
        given = {override.split("=")[0] for override in run.overrides}
        space = nested(self.candidates, candidate, "space") or {}
        return tuple((key, leaves[key]) for key in space if key in leaves and key in given)

    def unfinished(self, members: Sequence[Member]) -> list[str]:
        """That the study is not over, if it is not; older records do not say so themselves."""
        seeds = self.protocol.get("repeat_seeds") or []
        chosen = self.record.get("best") or self.candidates
        awaited = {(name, str(seed)) for name in chosen for seed in seeds}
        ended = {
            (member.candidate, member.run.seed)
            for member in members
            if member.phase == REPEAT and member.run.status in (*FINISHED, *BROKEN)
        }
        if self.record.get("finished", bool(self.entries) and awaited <= ended):
            return []
        said = f"The study {self.directory.name} is not finished"
        if awaited:
            said += f": {len(awaited & ended)} of {len(awaited)} repeats have ended"
        if not ended:
            said += "; its trials are shown, and a candidate's best setting may still change"
        return [f"{said}."]

    def facts(self) -> list[str]:
        """The protocol in words."""
        return protocol_facts(self.protocol, self.record) if self.protocol else []


def protocol_facts(protocol: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """Budgets, seeds and what halving saved, in words."""
    facts = [
        f"{protocol.get('trials')} trials for each candidate, sampler {protocol.get('sampler')} "
        f"(seed {protocol.get('sampler_seed')})",
        f"tuned on seeds {protocol.get('tune_seeds')}, the best setting repeated on fresh seeds "
        f"{protocol.get('repeat_seeds')}",
    ]
    halving, compute = protocol.get("halving"), record.get("tuning_compute") or {}
    if halving and "saved_fraction" in compute and record.get("finished", True):
        facts.append(
            f"successive halving at {halving.get('rungs')} of the horizon, {halving.get('keep')} "
            f"of the trials go on: {compute['saved_fraction']:.0%} of the tuning steps saved "
            f"({compute.get('steps'):,} in place of {compute.get('steps_without_halving'):,})"
        )
        facts += [*overtaken(record), *audit(record)]
    return facts


def overtaken(record: dict[str, Any]) -> list[str]:
    """Whether the trial that led at the first rung was also the best in the end.

    It tells how far early values can be trusted; what pruned trials would have reached is
    :func:`audit`'s.
    """
    sign = -1 if record.get("monitor_mode") == "min" else 1
    first: dict[str, list[tuple[float, Any]]] = {}
    for entry in record.get("runs") or []:
        rungs = [rung for rung in entry.get("rungs") or [] if rung.get("value") is not None]
        if rungs:
            value = sign * float(rungs[0]["value"])
            first.setdefault(entry["candidate"], []).append((value, entry.get("trial")))
    best = {name: chosen.get("trial") for name, chosen in (record.get("best") or {}).items()}
    changed = [
        name
        for name, leaders in first.items()
        if name in best and best[name] != max(leaders, key=lambda pair: pair[0])[1]
    ]
    if not changed:
        return ["the trial that led at the first rung was the best in the end, for every candidate"]
    return [f"the leader of the first rung was overtaken later, for {', '.join(changed)}"]


def audit(record: dict[str, Any]) -> list[str]:
    """Whether halving changed the winner: known once the pruned trials were run to the end."""
    sign = -1 if record.get("monitor_mode") == "min" else 1
    pruned = [entry for entry in record.get("runs") or [] if entry.get("status") == "pruned"]
    values: dict[str, list[float]] = {}
    for entry in record.get("runs") or []:
        if (value := finite(entry.get("audited"))) is not None:
            values.setdefault(entry["candidate"], []).append(sign * value)
    if unknown := sum(finite(entry.get("audited")) is None for entry in pruned):
        return [
            f"whether one of the {unknown} pruned runs would have won is not known; with "
            "hydra.sweeper.halving.audit=true the same command runs them to the end"
        ]
    chosen = {
        name: sign * value
        for name, best in (record.get("best") or {}).items()
        if (value := finite(best.get("value"))) is not None
    }
    if not values or not chosen:
        return []
    unpruned = {name: max([value, *values.get(name, [])]) for name, value in chosen.items()}
    metric = str(record.get("monitor"))
    better = [
        f"{name} ({metric_value(metric, sign * unpruned[name])} in place of "
        f"{metric_value(metric, sign * value)})"
        for name, value in chosen.items()
        if unpruned[name] > value
    ]
    winner, would_be = max(chosen, key=chosen.__getitem__), max(unpruned, key=unpruned.__getitem__)
    return [
        f"audit: the {len(pruned)} pruned runs were run to the end afterwards; "
        + (
            f"without halving, another setting would have been chosen for {', '.join(better)}"
            if better
            else "without halving, the same settings would have been chosen"
        ),
        f"best in tuning: {winner}, "
        + ("with and without halving" if winner == would_be else f"without halving {would_be}"),
    ]


def space_rows(candidates: dict[str, Any]) -> list[list[str]]:
    """One row per tuned setting."""
    rows = []
    for name, candidate in candidates.items():
        overrides = " ".join(map(str, candidate.get("overrides") or []))
        source = str(candidate.get("source") or "")
        space = candidate.get("space") or {"–": "nothing"}
        rows += [[name, key, searched(node), overrides, source] for key, node in space.items()]
    return rows


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
