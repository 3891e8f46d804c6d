"""A study of runs that are only pretended: a launcher writes what they would leave behind."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.progress import Monitor
from study.engine import Study
from study.sweeper import conduct

HORIZON = 100
HALVING = {"rungs": [0.1, 0.5], "keep": 0.5}
SETTINGS: dict[str, Any] = {
    "name": "test",
    "candidates": {
        "sgd": {
            "overrides": ["optimizer=sgd"],
            "space": {"optimizer.lr": {"low": 1e-3, "high": 1.0, "log": True}},
            "source": "this test",
        },
        "adam": {
            "overrides": ["optimizer=adam"],
            "space": {
                "optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True},
                "optimizer.betas.0": {"low": 0.01, "high": 0.5, "log": True, "one_minus": True},
            },
        },
    },
    "trials": 4,
    "sampler": "sobol",
    "replicates": 1,
    "seeds_per_replicate": 2,
    "seed": 0,
    "batch_size": None,
    "halving": None,
    "untuned": False,
    "extend": False,
}


def accuracy(given: dict[str, str], steps: int) -> float:
    """Best at a rate of 0.1 for SGD and 0.01 for Adam; grows with the steps."""
    best = 0.1 if given["optimizer"] == "sgd" else 0.01
    distance = abs(math.log10(float(given.get("optimizer.lr", 1e-3)) / best))
    return (1 - distance / 10) * steps / (steps + 10)


@dataclass
class FakeLauncher:
    """Runs jobs by writing their summaries; keeps what it was asked to run.

    Attributes:
        status_of: the status a run ends with, from its overrides.
        killed_after: raise KeyboardInterrupt when so many jobs are done, as a kill would.
        loses: job names whose process dies, and the launcher with it.
        accuracy: what a run reaches, from its overrides and steps.
        loss: the name of the loss that runs record.
        jobs: the overrides of each job, by key.
    """

    directory: Path
    status_of: Callable[[dict[str, str]], str] = lambda given: "completed"
    killed_after: int | None = None
    loses: tuple[str, ...] = ()
    accuracy: Callable[[dict[str, str], int], float] = accuracy
    loss: str = "train/loss"
    jobs: list[dict[str, str]] = field(default_factory=list)

    def launch(self, job_overrides: Any, initial_job_idx: int) -> None:
        for overrides in job_overrides:
            given = dict(override.split("=", 1) for override in overrides)
            if len(self.jobs) == self.killed_after:
                raise KeyboardInterrupt
            self.jobs.append(given)
            if given["hydra.sweep.subdir"] in self.loses:
                raise RuntimeError("a worker was killed")
            self.run(given)

    def run(self, given: dict[str, str]) -> None:
        folder = self.directory / given["hydra.sweep.subdir"]
        folder.mkdir(parents=True, exist_ok=True)
        steps = int(given.get("trainer.limit_train_steps", HORIZON))
        status = self.status_of(given)
        events = [
            {"step": n, "seconds": n / 100, self.loss: 1.0, "optim/lr": 0.1}
            for n in range(1, steps + 1)
        ]
        lines = [json.dumps(event) + "\n" for event in events]
        (folder / "metrics.jsonl").write_text("".join(lines))
        summary = {
            "status": status,
            "error": "refused" if status == "failed" else None,
            "steps": steps,
            "horizon_steps": HORIZON,
            "best": {"value": self.accuracy(given, steps)} if status == "completed" else None,
            "initial_weights_hash": given.get("seed"),
            "data_order_hash": given.get("seed"),
        }
        (folder / "summary.json").write_text(json.dumps(summary))

    @property
    def commands(self) -> list[tuple[str, str | None]]:
        """The run and the step limit of each job started after the preflight, in order."""
        return [
            (job["hydra.sweep.subdir"], job.get("trainer.limit_train_steps"))
            for job in self.jobs
            if not job["hydra.sweep.subdir"].startswith("preflight/")
        ]

    @property
    def names(self) -> list[str]:
        """The jobs started after the preflight, in order."""
        return [name for name, _ in self.commands]


def conduct_fake(launcher: FakeLauncher, *arguments: str, **changes: Any) -> Study:
    """A study of the fake runs with some settings changed."""
    return conduct(
        SETTINGS | changes,
        arguments,
        launcher.directory,
        launcher,
        lambda overrides: {"trainer": {"limit_train_steps": None}},
        Monitor("val/accuracy", "max"),
        "test",
        (),
    )


def record_of(directory: Path) -> dict[str, Any]:
    """The content of ``study.json``."""
    return json.loads((directory / "study.json").read_text())
