"""``study.json``: the protocol and the results of a study, for reports."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.errors import ConfigError
from core.files import write_json
from core.progress import Monitor
from study.engine import Study, Tuning, trial_name
from study.jobs import Run, read_json
from study.preflight import Cost
from study.space import text
from trainer.loggers.console import LOG_WIDTH, format_metric

FILE = "study.json"


def begin(settings: dict[str, Any], arguments: tuple[str, ...], directory: Path) -> dict[str, Any]:
    """Write the protocol down, or check that a resumed study has the same one.

    Returns:
        The record; without ``costs`` until a preflight has passed.

    Raises:
        ConfigError: the directory holds a study with another protocol.
    """
    now = json.loads(json.dumps({"protocol": settings, "arguments": sorted(arguments)}))
    before = read_json(directory / FILE)
    if not before.get("costs"):
        new = {**now, "command": sys.argv, "costs": {}, "finished": False, "runs": []}
        write_json(new, directory / FILE)
        return new
    decisive = deciding(before["protocol"])
    changed = [f"hydra.sweeper.{key}" for key, value in deciding(now["protocol"]).items()
               if decisive.get(key) != value]  # fmt: skip
    differing = set(now["arguments"]) ^ set(before["arguments"])
    changed += sorted(name for name in differing if not name.startswith("hydra."))
    if changed:
        raise ConfigError(
            f"{directory} holds a study that was started with another {', '.join(changed)}: "
            "continue it as it was, or give hydra.sweep.dir a new directory"
        )
    update(directory, {"protocol": now["protocol"], "finished": False})
    return before


def measured(record: dict[str, Any], monitor: Monitor) -> dict[str, dict[int, float]]:
    """What the trials of a killed study had reached at their rungs, by their names."""
    return {
        trial_name(entry["candidate"], entry["trial"]): {
            rung["step"]: monitor.worst if rung["value"] is None else rung["value"]
            for rung in entry["rungs"]
        }
        for entry in record["runs"]
        if entry["phase"] == "tune"
    }


def deciding(protocol: dict[str, Any]) -> dict[str, Any]:
    """The protocol without the audit, which changes no decision and may be asked for later."""
    halving = protocol.get("halving") or {}
    return {**protocol, "halving": {k: v for k, v in halving.items() if k != "audit"}}


def keep_costs(costs: dict[str, Cost], directory: Path) -> None:
    update(directory, {"costs": {name: asdict(cost) for name, cost in costs.items()}})


def keep_results(study: Study, finished: bool = False) -> None:
    """What the study knows so far, and the place of every run that was started."""
    candidates, best = study.protocol.candidates, study.best()
    repeats = [
        entry(study, best[name], "repeat", seed, run)
        for name, by_seed in study.repeats.items()
        for seed, run in by_seed.items()
    ]
    update(
        study.jobs.directory,
        {
            "finished": finished,
            "monitor": study.monitor.name,
            "monitor_mode": study.monitor.mode,
            "rungs": {name: study.protocol.rungs(study.horizons[name]) for name in candidates},
            "best": {
                name: {"trial": tuning.number, "params": tuning.params, "value": tuning.value}
                for name, tuning in best.items()
            },
            "runs": [e for tuning in study.tunings for e in entries(study, tuning)] + repeats,
            "tuning_compute": compute(study),
            "paired": pairing(study),
        },
    )


def update(directory: Path, news: dict[str, Any]) -> None:
    write_json(read_json(directory / FILE) | news, directory / FILE)


def entry(study: Study, tuning: Tuning, phase: str, seed: int, run: Run) -> dict[str, Any]:
    """The place of a run: a trial's, or a repeat of its setting."""
    return {
        "run_dir": run.name,
        "candidate": tuning.candidate.name,
        "phase": phase,
        "trial": tuning.number,
        "seed": seed,
        "params": tuning.params,
        "status": study.jobs.summary(run).get("status"),
    }


def entries(study: Study, tuning: Tuning) -> list[dict[str, Any]]:
    """One entry for each run of a trial."""
    measured = {
        "budget_steps": study.horizons[tuning.candidate.name],
        "rungs": [{"step": s, "value": v} for s, v in sorted(tuning.values.items())],
        "audited": tuning.audited,
    }
    runs = study.runs_of(tuning, max(tuning.values, default=0))
    return [
        entry(study, tuning, "tune", seed, run) | measured
        for seed, run in zip(study.protocol.tune_seeds, runs, strict=True)
    ]


def compute(study: Study) -> dict[str, Any]:
    """Updates that the ended trials took, beside what they would have without halving; no audit."""
    ended = [tuning for tuning in study.tunings if tuning.state != "running"]
    seeds = len(study.protocol.tune_seeds)
    full = sum(study.horizons[tuning.candidate.name] for tuning in ended) * seeds
    taken = sum(max(tuning.values) for tuning in ended) * seeds
    return {
        "steps": taken,
        "steps_without_halving": full,
        "saved_fraction": 1 - taken / full if full else 0.0,
    }


def pairing(study: Study) -> dict[str, bool | None]:
    """Whether runs of the same seed began with the same weights and saw the same sample order."""
    hashes: dict[str, dict[int, set[Any]]] = {"initial_weights_hash": {}, "data_order_hash": {}}
    for by_seed in study.repeats.values():
        for seed, run in by_seed.items():
            summary = study.jobs.summary(run)
            if summary.get("status") in ("completed", "stopped"):
                for key, found in hashes.items():
                    found.setdefault(seed, set()).add(summary.get(key))
    return {
        key: all(len(values) == 1 for values in found.values()) if found else None
        for key, found in hashes.items()
    }


def print_results(study: Study) -> None:
    """The outcome in a table; claims are the report's business."""
    table = Table(title="Study", title_justify="left", title_style="bold")
    monitor = study.monitor.name
    twin = monitor.replace("val/", "test/")
    for column in ("candidate", "best setting", f"tuned {monitor}", twin, "n"):
        table.add_column(column, overflow="fold")
    best = study.best()
    for candidate in study.protocol.candidates.values():
        if candidate.name not in best:
            table.add_row(candidate.name, "[red]no trial finished[/red]")
            continue
        chosen = best[candidate.name]
        runs = study.repeats.get(candidate.name, {}).values()
        summaries = [study.jobs.summary(run) for run in runs]
        tests = [summary[twin] for summary in summaries if summary.get(twin) is not None]
        table.add_row(
            candidate.name,
            escape("\n".join(f"{key}={text(value)}" for key, value in chosen.params.items())),
            format_metric(monitor, chosen.value),
            format_metric(twin, sum(tests) / len(tests)) if tests else "",
            str(len(tests)),
        )
    console = Console(highlight=False, width=None if sys.stdout.isatty() else LOG_WIDTH)
    console.print(table)
    console.print(f"python report.py {study.jobs.directory}", soft_wrap=True)
