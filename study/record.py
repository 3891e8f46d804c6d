"""``study.json``: the protocol and the results of a study, for reports."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.markup import escape

from core.errors import ConfigError
from core.files import write_json
from core.overrides import text
from core.progress import Monitor
from study.engine import Replicate, Study, Tuning
from study.jobs import STUDY_FILE, Run, read_study, update_study
from study.tables import print_report_command, titled_table, wide_console
from trainer.loggers.console import format_metric


def begin(settings: dict[str, Any], arguments: tuple[str, ...], directory: Path) -> dict[str, Any]:
    """Record the protocol, or check that a resumed study has the same one.

    Returns:
        The record, without ``costs`` until the preflight has passed.

    Raises:
        ConfigError: if the directory holds a study with another protocol.
    """
    now = json.loads(json.dumps({"protocol": settings, "arguments": sorted(arguments)}))
    before = read_study(directory)
    if not before.get("costs"):
        new = {**now, "command": sys.argv, "costs": {}, "finished": False, "runs": []}
        write_json(new, directory / STUDY_FILE)
        return new
    decisive = deciding(before["protocol"])
    changed = [f"hydra.sweeper.{key}" for key, value in deciding(now["protocol"]).items()
               if decisive.get(key) != value]  # fmt: skip
    differing = set(now["arguments"]) ^ set(before["arguments"])
    changed += sorted(name for name in differing if not name.startswith("hydra."))
    if changed:
        raise ConfigError(
            f"{directory} holds a study that was started with another {', '.join(changed)}: "
            "restore these settings, or set hydra.sweep.dir to a new directory"
        )
    update_study(directory, {"protocol": now["protocol"], "finished": False})
    return before


def measured(record: dict[str, Any], monitor: Monitor) -> dict[str, dict[int, float]]:
    """Values that the trials of a killed study had reached at their rungs, by trial name."""
    return {
        entry["run_dir"]: {
            rung["step"]: monitor.worst if rung["value"] is None else rung["value"]
            for rung in entry["rungs"]
        }
        for entry in record["runs"]
        if entry["phase"] == "tune"
    }


def deciding(protocol: dict[str, Any]) -> dict[str, Any]:
    """The protocol without settings that only add runs, which may be changed later."""
    halving = protocol.get("halving") or {}
    added = ("replicates", "untuned", "extend")
    return {
        **{key: value for key, value in protocol.items() if key not in added},
        "halving": {key: value for key, value in halving.items() if key != "audit"},
    }


def keep_results(study: Study, finished: bool = False) -> None:
    """Write the results so far, and the directory of every run that was started.

    Keeps entries of replicates that a resumed study has not reached again.
    """
    before = read_study(study.jobs.directory)
    ahead = range(len(study.replicates), study.protocol.replicates)
    later = {
        kind: [entry for entry in before.get(kind, []) if entry["replicate"] in ahead]
        for kind in ("best", "runs")
    }
    update_study(
        study.jobs.directory,
        {
            "finished": finished,
            "monitor": study.jobs.monitor.name,
            "monitor_mode": study.jobs.monitor.mode,
            "best": [entry for r in study.replicates for entry in best_entries(r)] + later["best"],
            "at_bounds": study.at_bounds(),
            "runs": [entry for r in study.replicates for entry in entries(r)] + later["runs"],
            "tuning_compute": compute(study),
        },
    )


def best_entries(replicate: Replicate) -> Iterator[dict[str, Any]]:
    """The settings that a replicate chose: one entry per candidate."""
    for name, tuning in replicate.best().items():
        yield {
            "candidate": name,
            "replicate": replicate.number,
            "trial": tuning.number,
            "params": tuning.params,
            "value": tuning.value,
        }


def entries(replicate: Replicate) -> Iterator[dict[str, Any]]:
    """One entry per run of a replicate: trials, repeats of the best settings, untuned runs."""
    summary, horizons = replicate.study.jobs.summary, replicate.study.horizons

    def entry(run: Run, phase: str, candidate: str, seed: int, **rest: Any) -> dict[str, Any]:
        return {
            "run_dir": run.name,
            "phase": phase,
            "candidate": candidate,
            "replicate": replicate.number,
            "seed": seed,
            "status": summary(run).get("status"),
            **rest,
        }

    for tuning in replicate.tunings:
        run = replicate.run_of(tuning, max(tuning.values, default=0))
        yield entry(
            run,
            "tune",
            tuning.candidate.name,
            replicate.seed,
            trial=tuning.number,
            params=tuning.params,
            budget_steps=horizons[tuning.candidate.name],
            rungs=[{"step": s, "value": v} for s, v in sorted(tuning.values.items())],
            audited=tuning.audited,
        )
    best = replicate.best()
    for name, by_seed in replicate.repeats.items():
        chosen = {"trial": best[name].number, "params": best[name].params}
        for seed, run in by_seed.items():
            yield entry(run, "repeat", name, seed, **chosen)
    for name, by_seed in replicate.untuned.items():
        for seed, run in by_seed.items():
            yield entry(run, "untuned", name, seed, trial=None, params={})


def compute(study: Study) -> dict[str, Any]:
    """Updates of the finished trials, with and without halving; audits are not counted."""
    ended = [tuning for tuning in study.tunings if tuning.state != "running"]
    full = sum(study.horizons[tuning.candidate.name] for tuning in ended)
    taken = sum(max(tuning.values) for tuning in ended)
    return {
        "steps": taken,
        "steps_without_halving": full,
        "saved_fraction": 1 - taken / full if full else 0.0,
    }


def print_results(study: Study) -> None:
    """Print the best settings and their results; verdicts are left to ``report.py``."""
    monitor = study.jobs.monitor.name
    twin = monitor.replace("val/", "test/")
    table = titled_table("Study", "candidate", "best settings", f"tuned {monitor}", twin, "runs")
    for name in study.protocol.candidates:
        chosen = [best[name] for r in study.replicates if name in (best := r.best())]
        if not chosen:
            table.add_row(name, "[red]no trial finished[/red]")
            continue
        runs = [run for r in study.replicates for run in r.repeats.get(name, {}).values()]
        summaries = [study.jobs.summary(run) for run in runs]
        tests = [summary[twin] for summary in summaries if summary.get(twin) is not None]
        table.add_row(
            name,
            escape("\n".join(settings(chosen))),
            format_metric(monitor, fmean(tuning.value for tuning in chosen)),
            format_metric(twin, fmean(tests)) if tests else "",
            str(len(tests)),
        )
    console = wide_console()
    console.print(table)
    if study.protocol.replicates == 1:
        console.print(
            "One replicate compares these settings, not the candidates in general; set "
            "hydra.sweeper.replicates=5 to tune every candidate five times"
        )
    print_report_command(console, study.jobs.directory)


def settings(chosen: list[Tuning]) -> Iterator[str]:
    """The chosen value of each setting, or its range over the replicates."""
    for key in dict.fromkeys(key for tuning in chosen for key in tuning.params):
        values = [tuning.params[key] for tuning in chosen if key in tuning.params]
        if all(isinstance(value, int | float) for value in values):
            values = [min(values), max(values)]
        yield f"{key}={' to '.join(dict.fromkeys(text(value) for value in values))}"
