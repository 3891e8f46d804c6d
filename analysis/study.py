"""The record of a study, ``study.json``: which run was a trial of what, and by which protocol.

The study sweeper writes it; a plain sweep has none, and its candidates are told from the configs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.candidates import Member
from analysis.runs import Run, finite, nested, read_json, read_yaml
from analysis.wording import metric_value

FILE = "study.json"
SPACE_COLUMNS = ["candidate", "setting", "searched", "overrides", "source"]


@dataclass(frozen=True)
class Study:
    """What a study set out to do, and the place of each of its runs."""

    entries: dict[Path, dict[str, Any]] = field(default_factory=dict)
    facts: list[tuple[str, list[str]]] = field(default_factory=list)
    spaces: list[list[str]] = field(default_factory=list)  # rows of SPACE_COLUMNS

    def members(self, runs: Sequence[Run]) -> list[Member]:
        """The runs that the study has on record; one still under way has no place yet."""
        placed = [(run, self.entries.get(run.path.resolve())) for run in runs]
        return [
            Member(
                run,
                str(entry["candidate"]),
                str(entry["candidate"]),
                tuple(entry.get("params", {}).items()),
                str(entry["phase"]),
            )
            for run, entry in placed
            if entry is not None
        ]


def read_study(directories: Sequence[Path]) -> Study:
    """The study of the one sweep directory given; without runs if there is none."""
    if len(directories) != 1:
        return Study()
    directory = directories[0]
    record = read_json(directory / FILE)
    entries = {
        (directory / str(entry["run_dir"])).resolve(): entry
        for entry in record.get("runs", [])
        if isinstance(entry, dict) and {"run_dir", "candidate", "phase"} <= set(entry)
    }
    facts = [("command", command_of(directory))]
    if not entries:
        return Study(facts=facts)
    protocol = record.get("protocol") or {}
    facts.append(("protocol", protocol_facts(protocol, record)))
    return Study(entries, facts, space_rows(protocol.get("candidates") or {}))


def command_of(directory: Path) -> list[str]:
    """The sweep's command line as Hydra recorded it, if it did."""
    recorded = nested(read_yaml(directory / "multirun.yaml"), "hydra", "overrides")
    given = [
        str(override)
        for kind in ("task", "hydra")
        for override in nested(recorded, kind) or []
        if not str(override).startswith(("hydra.mode=", "hydra.sweep.dir="))
    ]
    return [f"python train.py -m {' '.join(given)}"] if given else []


def protocol_facts(protocol: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """Budgets, seeds and what halving saved, in words."""
    facts = [
        f"{protocol.get('trials')} trials for each candidate, sampler {protocol.get('sampler')} "
        f"(seed {protocol.get('sampler_seed')})",
        f"tuned on seeds {protocol.get('tune_seeds')}, the best setting repeated on fresh seeds "
        f"{protocol.get('repeat_seeds')}",
    ]
    halving, compute = protocol.get("halving"), record.get("tuning_compute") or {}
    if halving and "saved_fraction" in compute:
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
    for entry in record["runs"]:
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
    pruned = [entry for entry in record["runs"] if entry.get("status") == "pruned"]
    values: dict[str, list[float]] = {}
    for entry in record["runs"]:
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
        if candidate is None:
            continue
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
