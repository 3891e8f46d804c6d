"""Preflight check of a study: that every candidate runs, and a forecast of the cost."""

import json
import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from core.command_line import Compose, explain
from core.errors import ConfigError
from core.overrides import text
from core.records import lines_of
from study.jobs import Jobs, Run, Summary
from study.protocol import Candidate, Protocol

STEPS = 10  # enough for a step time; the first ones are slower
FOLDER = "preflight"  # ignored by the sweep's table and by reports


@dataclass(frozen=True)
class Cost:
    """Cost of a full run of a candidate."""

    steps: int
    step_seconds: float
    startup_seconds: float
    run_bytes: int

    @property
    def seconds(self) -> float:
        """Training and start-up, without evaluation."""
        return self.startup_seconds + self.steps * self.step_seconds


def preflight(protocol: Protocol, jobs: Jobs, compose: Compose) -> dict[str, Cost]:
    """Compose every candidate and train it for a few steps with the study's launcher.

    Args:
        compose: returns the config that Hydra composes from overrides.

    Raises:
        ConfigError: if candidates do not compose or run; lists all of them, and why.
    """
    shutil.rmtree(jobs.directory / FOLDER, ignore_errors=True)  # left by an earlier attempt
    failures: list[str] = []
    attempts: list[tuple[str, Run, int | None]] = []  # candidate, run, its limit of steps
    for candidate in protocol.candidates.values():
        for number, overrides in enumerate(representatives(candidate)):
            words = [*jobs.arguments, *overrides]
            try:
                trainer = compose(words)["trainer"]
            except Exception as error:  # Hydra and OmegaConf raise many types
                reason = explain(error, words, compose)
                failures.append(f"{candidate.name} ({' '.join(overrides)}): {reason}")
                continue
            limit = trainer["limit_train_steps"]
            steps = STEPS if limit is None else min(STEPS, limit)
            quiet = ("trainer.log_every_steps=1", "trainer.test=false", "wandb.mode=disabled")
            run = Run(f"{FOLDER}/{candidate.name}-{number}", (*overrides, *quiet), steps)
            attempts.append((candidate.name, run, limit))
    summaries = jobs.run([run for _, run, _ in attempts])
    costs: dict[str, Cost] = {}
    for name, run, limit in attempts:
        summary = summaries[run.name]
        if summary["status"] == "failed":
            failures.append(f"{name}: {summary.get('error')}")
        elif name not in costs:
            costs[name] = cost_of(jobs.directory / run.name, summary, limit)
    if failures:
        raise ConfigError("these candidates do not run:\n  " + "\n  ".join(failures))
    return costs


def representatives(candidate: Candidate) -> Iterable[list[str]]:
    """A few points of a candidate's space that cover each of its choices at least once."""
    space = candidate.search_space
    most = max((len(dimension.choices) for dimension in space.dimensions), default=0)
    for number in range(max(most, 1)):
        shares = [
            dimension.grid()[number % len(dimension.choices)] if dimension.choices else 0.5
            for dimension in space.dimensions
        ]
        settings = space.at(shares)
        yield [*candidate.overrides, *(f"{key}={text(value)}" for key, value in settings.items())]


def cost_of(folder: Path, summary: Summary, limit: int | None) -> Cost:
    seconds = [0.0]
    for line in lines_of(folder / "metrics.jsonl"):
        event = json.loads(line)
        if any(name.startswith("optim/") for name in event):  # logging steps only
            seconds.append(event["seconds"])
    steps = [after - before for before, after in pairwise(seconds)]
    horizon = summary["horizon_steps"]
    return Cost(
        steps=horizon if limit is None else min(limit, horizon),
        step_seconds=median(steps[len(steps) // 3 :]) if steps else 0.0,
        startup_seconds=summary.get("startup_seconds", 0.0),
        run_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
    )


def print_forecast(protocol: Protocol, costs: dict[str, Cost]) -> None:
    """Print the time and storage that the whole study will take, by the preflight's costs."""
    table = Table(title="Forecast", title_justify="left", title_style="bold")
    for column in ("candidate", "updates per run", "ms per update", "runs", "time"):
        table.add_column(column, justify="left" if column == "candidate" else "right")
    seconds = total_bytes = 0.0
    for name, cost in costs.items():
        tune, repeats = protocol.num_runs(protocol.candidates[name])
        candidate_seconds = planned_seconds(protocol, cost, tune, repeats)
        seconds += candidate_seconds
        total_bytes += (tune + repeats) * cost.run_bytes
        table.add_row(
            name,
            f"{cost.steps:,}",
            f"{1000 * cost.step_seconds:.1f}",
            f"{tune + repeats}",
            duration(candidate_seconds),
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"about {duration(seconds)} of training, one run at a time and without evaluation, and "
        f"{total_bytes / 1e9:.2f} GB of files",
        soft_wrap=True,
    )


def planned_seconds(protocol: Protocol, cost: Cost, trials: int, repeats: int) -> float:
    """Time of a candidate's runs, one at a time; halving ends most trials early."""
    full_runs = trials * tuned_share(protocol, cost.steps) + repeats
    return full_runs * cost.seconds


def tuned_share(protocol: Protocol, steps: int) -> float:
    """Cost of tuning with halving, as a fraction of running every trial to the end."""
    if not protocol.halving or protocol.halving.audit:
        return 1.0  # an audit runs pruned trials to the end after all
    alive, done, cost = protocol.trials, 0, 0
    for rung in protocol.rungs(steps):
        cost += alive * (rung - done)
        done = rung
        alive = math.ceil(alive * protocol.halving.keep)
    return cost / (protocol.trials * steps)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
