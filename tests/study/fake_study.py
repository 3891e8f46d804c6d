"""A study whose runs are simulated: its launcher writes their files without training."""

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


def accuracy(overrides: dict[str, str], steps: int) -> float:
    """Simulated accuracy: best at lr 0.1 for SGD and 0.01 for Adam, and grows with the steps."""
    best = 0.1 if overrides["optimizer"] == "sgd" else 0.01
    distance = abs(math.log10(float(overrides.get("optimizer.lr", 1e-3)) / best))
    return (1 - distance / 10) * steps / (steps + 10)


@dataclass
class FakeLauncher:
    """Hydra launcher that writes the metrics and the summary of each job instead of running it.

    Attributes:
        status_of: final status of a run, given its overrides.
        killed_after: number of jobs after which the study is killed by a KeyboardInterrupt.
        crashing_jobs: names of jobs whose process dies and takes the launcher with it.
        accuracy: monitored value of a run, given its overrides and steps.
        loss: name under which runs log their loss.
        jobs: overrides of each launched job, by key.
    """

    directory: Path
    status_of: Callable[[dict[str, str]], str] = lambda overrides: "completed"
    killed_after: int | None = None
    crashing_jobs: tuple[str, ...] = ()
    accuracy: Callable[[dict[str, str], int], float] = accuracy
    loss: str = "train/loss"
    jobs: list[dict[str, str]] = field(default_factory=list)

    def launch(self, job_overrides: Any, initial_job_idx: int) -> None:
        for job in job_overrides:
            overrides = dict(override.split("=", 1) for override in job)
            if len(self.jobs) == self.killed_after:
                raise KeyboardInterrupt
            self.jobs.append(overrides)
            if overrides["hydra.sweep.subdir"] in self.crashing_jobs:
                raise RuntimeError("a worker was killed")
            self.run(overrides)

    def run(self, overrides: dict[str, str]) -> None:
        folder = self.directory / overrides["hydra.sweep.subdir"]
        folder.mkdir(parents=True, exist_ok=True)
        steps = int(overrides.get("trainer.limit_train_steps", HORIZON))
        status = self.status_of(overrides)
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
            "best": {"value": self.accuracy(overrides, steps)} if status == "completed" else None,
            "initial_weights_hash": overrides.get("seed"),
            "data_order_hash": overrides.get("seed"),
        }
        (folder / "summary.json").write_text(json.dumps(summary))

    @property
    def commands(self) -> list[tuple[str, str | None]]:
        """Name and step limit of each job launched after the preflight, in order."""
        return [
            (job["hydra.sweep.subdir"], job.get("trainer.limit_train_steps"))
            for job in self.jobs
            if not job["hydra.sweep.subdir"].startswith("preflight/")
        ]

    @property
    def names(self) -> list[str]:
        """Name of each job launched after the preflight, in order."""
        return [name for name, _ in self.commands]


def run_fake_study(launcher: FakeLauncher, *arguments: str, **changes: Any) -> Study:
    """Run the study in ``SETTINGS``, with some settings changed, in the launcher's directory."""
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


def read_record(directory: Path) -> dict[str, Any]:
    """The content of ``study.json``."""
    return json.loads((directory / "study.json").read_text())
