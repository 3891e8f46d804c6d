"""How the runs of a comparison were made: commands, versions, hardware, source, hashes."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from analysis.candidates import Member, label
from analysis.comparison import Comparison
from analysis.runs import Run, nested
from analysis.wording import metric_value


@dataclass(frozen=True)
class Provenance:
    facts: list[tuple[str, list[str]]]  # a name and every value it had, with its count
    columns: list[str]
    runs: list[list[str]]  # one row per run


def provenance(comparison: Comparison, made_by: list[tuple[str, list[str]]]) -> Provenance:
    runs = [member.run for member in comparison.members]
    sources: dict[str, Callable[[Run], Any]] = {
        "data": lambda run: data(run.summary),
        "model": lambda run: model(run),
        "hardware": lambda run: hardware(run.summary),
        "precision": lambda run: run.summary.get("precision"),
        "source": lambda run: source(run.summary),
        "versions": lambda run: versions(run.summary),
    }
    facts = made_by + [(name, counted(runs, value_of)) for name, value_of in sources.items()]
    cells = [run_cells(member, comparison) for member in comparison.members]
    columns = [name for name in cells[0] if any(of_run[name] for of_run in cells)]
    rows = [[of_run[name] for name in columns] for of_run in cells]
    return Provenance([fact for fact in facts if fact[1]], columns, rows)


def counted(runs: list[Run], value_of: Callable[[Run], Any]) -> list[str]:
    found = Counter(str(value) for run in runs if (value := value_of(run)))
    if len(found) == 1:
        return list(found)
    return [f"{value} ({count} runs)" for value, count in found.most_common()]


def data(summary: dict[str, Any]) -> str | None:
    if not summary.get("data"):
        return None
    sizes = summary.get("num_samples")
    pairs = sizes.items() if isinstance(sizes, dict) else ()
    shown = ", ".join(f"{count} {name}" for name, count in pairs)
    return f"{data_set(summary)}: {shown}, batch size {summary.get('batch_size')}"


def data_set(summary: dict[str, Any]) -> str | None:
    name = summary.get("data")
    return f"{name}{' (synthetic)' if summary.get('synthetic_data') else ''}" if name else None


def model(run: Run) -> str | None:
    parameters = run.number("num_parameters")
    name = run.choices.get("model") or nested(run.config, "model", "_target_")
    return f"{name}, {parameters:,.0f} parameters" if name and parameters else None


def hardware(summary: dict[str, Any]) -> str | None:
    if not summary.get("device"):
        return None
    name = summary.get("hardware")
    parts = [
        f"{summary['device']}{f' ({name})' if name else ''}",
        f"{summary.get('world_size')} process{'es' * (summary.get('world_size') != 1)}",
        f"{summary.get('num_threads')} thread{'s' * (summary.get('num_threads') != 1)}",
    ]
    return ", ".join(parts)


def source(summary: dict[str, Any]) -> str | None:
    commit = summary.get("git_commit")
    changed = " with uncommitted changes" if summary.get("git_dirty") else ""
    return f"commit {commit}{changed}" if commit else None


def versions(summary: dict[str, Any]) -> str | None:
    found = summary.get("versions")
    if not isinstance(found, dict):
        return None
    return ", ".join(f"{name} {version}" for name, version in found.items())


def run_cells(member: Member, comparison: Comparison) -> dict[str, str]:
    """What the table of all runs says of one."""
    run, summary, metric = member.run, member.run.summary, comparison.question.validation
    value = comparison.question.validation_of(run)
    return {
        "run": run.name,
        "candidate": member.candidate,
        "setting": label(member.setting) if member.candidate == member.family else "",
        "phase": member.phase,
        "seed": str(run.seed),
        "status": run.status,
        metric: "" if value is None else metric_value(metric, value),
        "steps": str(summary.get("steps", "")),
        "initial weights": str(summary.get("initial_weights_hash", ""))[:8],
        "sample order": str(summary.get("data_order_hash", ""))[:8],
        "overrides": " ".join(run.overrides),
        "error": str(summary.get("error") or ""),
    }
