"""The course of a study: tune every candidate, then repeat its best setting over fresh seeds.

The samplers are seeded, what was measured is in ``study.json`` and in the run directories; no other
state is kept. A study that was killed is resumed by going through it from the start: it asks for
the same settings, and runs that have ended are read, not run again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from core.progress import Monitor
from study.jobs import Jobs, Run, Summary
from study.protocol import Candidate, Protocol
from study.space import Params, Space, text

if TYPE_CHECKING:
    import optuna


@dataclass
class Tuning:
    """A trial of a candidate: one point of its space, run on every tuning seed.

    Attributes:
        values: the monitored metric's mean at each rung that the trial reached, by step.
        state: running, complete or pruned.
        trial: Optuna's.
        audited: of a pruned trial, what it reached when it was run to the end all the same.
    """

    candidate: Candidate
    number: int
    params: Params
    trial: optuna.Trial
    values: dict[int, float] = field(default_factory=dict)
    state: str = "running"
    audited: float | None = None

    @property
    def name(self) -> str:
        return trial_name(self.candidate.name, self.number)

    @property
    def value(self) -> float:
        """At the last rung that was reached."""
        return self.values[max(self.values)]

    @property
    def has_failed(self) -> bool:
        return bool(self.values) and math.isinf(self.value)

    def note(self, step: int, value: float) -> None:
        self.values[step] = value
        self.trial.report(value, step)


@dataclass
class Study:
    """A study in its sweep directory.

    Args:
        horizons: updates of a full run, by candidate.
        measured: the ``values`` of trials that a killed study had measured, by their names.
        keep: called before any runs start, so that a report knows their place while they run.
        tags: W&B tags that all runs have.

    Attributes:
        repeats: the runs of each candidate's best setting, by seed.
    """

    protocol: Protocol
    monitor: Monitor
    jobs: Jobs
    horizons: dict[str, int]
    measured: dict[str, dict[int, float]]
    keep: Callable[[Study], None]
    tags: tuple[str, ...] = ()
    trials: dict[str, list[Tuning]] = field(default_factory=dict)
    repeats: dict[str, dict[int, Run]] = field(default_factory=dict)

    def tune(self) -> None:
        """Try every candidate's trials, batch by batch, all candidates side by side."""
        candidates = self.protocol.candidates.values()
        designs = {c.name: self.protocol.design(c) for c in candidates}
        studies = {c.name: self.new_study(c.search_space, designs[c.name]) for c in candidates}
        size = self.protocol.batch_size or self.protocol.trials
        for start in range(0, self.protocol.trials, size):
            batches = []
            for candidate in candidates:
                num_trials = len(designs[candidate.name]) or self.protocol.trials  # of a small grid
                numbers = range(start, min(start + size, num_trials))
                batch = [self.ask(studies[candidate.name], candidate, n) for n in numbers]
                self.trials.setdefault(candidate.name, []).extend(batch)
                batches.append(batch)
            self.halve(batches)
            for tuning in (tuning for batch in batches for tuning in batch):
                if tuning.state == "running":
                    tuning.trial.study.tell(tuning.trial, tuning.value)
                    tuning.state = "complete"

    def new_study(self, space: Space, design: list[list[float]]) -> optuna.Study:
        """A candidate's study, with the points of its design waiting in it."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(constant_liar=True, seed=self.protocol.sampler_seed),
            direction="maximize" if self.monitor.mode == "max" else "minimize",
        )
        for shares in design:
            study.enqueue_trial(space.queued(shares))
        return study

    def ask(self, study: optuna.Study, candidate: Candidate, number: int) -> Tuning:
        trial = study.ask()
        return Tuning(candidate, number, candidate.search_space.suggest(trial), trial)

    def halve(self, batches: list[list[Tuning]]) -> None:
        """Run every trial to the first rung, the best of each batch to the next, and so on."""
        num_rungs = 1 + len(self.protocol.halving.rungs) if self.protocol.halving else 1
        for rung in range(num_rungs):
            self.measure([tuning for batch in batches for tuning in batch], rung)
            batches = [self.survivors(batch, rung) for batch in batches]

    def measure(self, tunings: list[Tuning], rung: int) -> None:
        """Run trials to a rung and keep what was measured there; failed ones are worst for good."""
        waiting = {}
        for tuning in tunings:
            step = self.rung_step(tuning.candidate, rung)
            known = self.measured.get(tuning.name, {})
            if step in tuning.values or tuning.has_failed:
                continue
            if step in known:
                tuning.note(step, known[step])
            else:
                waiting[step, tuning.candidate.name, tuning.number] = tuning
        runs = {key: self.runs_of(tuning, key[0]) for key, tuning in waiting.items()}
        summaries = self.run([run for of_trial in runs.values() for run in of_trial])
        for key, tuning in waiting.items():
            values = [value_of(summaries[run.name], self.monitor) for run in runs[key]]
            tuning.note(key[0], fmean(values))

    def survivors(self, batch: list[Tuning], rung: int) -> list[Tuning]:
        """The trials of a batch that go on from a rung; the others are pruned."""
        import optuna

        halving = self.protocol.halving
        step = self.rung_step(batch[0].candidate, rung) if batch else 0
        if halving is None or not batch or step == self.horizons[batch[0].candidate.name]:
            return batch
        ranked = sorted(batch, key=lambda t: (self.loss(t.values.get(step, t.value)), t.number))
        kept = ranked[: math.ceil(len(batch) * halving.keep)]
        for tuning in ranked[len(kept) :]:
            if tuning.state == "running" and not tuning.has_failed:
                self.mark_pruned(self.runs_of(tuning, step))
                tuning.trial.study.tell(tuning.trial, state=optuna.trial.TrialState.PRUNED)
                tuning.state = "pruned"
        return [tuning for tuning in batch if tuning in kept]

    def rung_step(self, candidate: Candidate, rung: int) -> int:
        rungs = self.protocol.rungs(self.horizons[candidate.name])
        return rungs[min(rung, len(rungs) - 1)]

    def runs_of(self, tuning: Tuning, step: int) -> list[Run]:
        """The runs of a trial: one for each tuning seed, to ``step``; none sees the test split."""
        limit = step if self.protocol.halving else None
        return [
            Run(
                f"{tuning.name}-seed{seed}" if len(self.protocol.tune_seeds) > 1 else tuning.name,
                (*self.overrides(tuning, "tune"), "trainer.test=false", f"seed={seed}"),
                limit,
            )
            for seed in self.protocol.tune_seeds
        ]

    def repeat(self) -> None:
        """Run every candidate's best setting on the fresh seeds, the same for all; then test.

        Seed by seed: a machine that is busier at one time than at another slows all of them.
        """
        seeds = self.protocol.repeat_seeds
        self.repeats = {
            name: {
                seed: Run(
                    f"{name}-repeat-seed{seed}", (*self.overrides(best, "repeat"), f"seed={seed}")
                )
                for seed in seeds
            }
            for name, best in self.best().items()
        }
        self.run([by_seed[seed] for seed in seeds for by_seed in self.repeats.values()])

    def audit(self) -> None:
        """Run the pruned trials to the end as well, now that no decision depends on them."""
        runs = {
            tuning.name: self.runs_of(tuning, self.horizons[tuning.candidate.name])
            for tuning in self.pruned
        }
        summaries = self.run([run for of_trial in runs.values() for run in of_trial])
        for tuning in self.pruned:
            of_trial = runs[tuning.name]
            tuning.audited = fmean(value_of(summaries[r.name], self.monitor) for r in of_trial)
            self.mark_pruned(of_trial)

    def mark_pruned(self, runs: list[Run]) -> None:
        """Record what the study has made of runs that would have gone on."""
        for run in runs:
            if self.jobs.summary(run).get("status") == "completed":
                self.jobs.amend(run, status="pruned")

    def run(self, runs: list[Run]) -> dict[str, Summary]:
        if runs:
            self.keep(self)
        return self.jobs.run(runs)

    @property
    def tunings(self) -> list[Tuning]:
        """The trials of all candidates."""
        return [tuning for of_candidate in self.trials.values() for tuning in of_candidate]

    @property
    def pruned(self) -> list[Tuning]:
        return [tuning for tuning in self.tunings if tuning.state == "pruned"]

    def best(self) -> dict[str, Tuning]:
        """The best finished trial of each candidate that has one."""
        best = {}
        for name, tunings in self.trials.items():
            finished = [t for t in tunings if t.state == "complete" and not t.has_failed]
            if finished:
                best[name] = min(finished, key=lambda t: (self.loss(t.value), t.number))
        return best

    def loss(self, value: float) -> float:
        """A value of the monitored metric, turned so that smaller is better."""
        return -value if self.monitor.mode == "max" else value

    def overrides(self, tuning: Tuning, phase: str) -> tuple[str, ...]:
        """What a trial's runs add to the command line: settings, and W&B's job type and tags."""
        return (
            *tuning.candidate.overrides,
            *(f"{key}={text(value)}" for key, value in tuning.params.items()),
            f"wandb.job_type={phase}",
            f"wandb.candidate={tuning.candidate.name}",
            f"wandb.tags={text([*self.tags, tuning.candidate.name])}",
        )


def trial_name(candidate: str, number: int) -> str:
    return f"{candidate}-tune-{number:03d}"


def value_of(summary: Summary, monitor: Monitor) -> float:
    """The best value a run reached; the worst possible one if it failed or diverged."""
    best = summary.get("best")
    if summary.get("status") in ("failed", "diverged") or not best or best["value"] is None:
        return monitor.worst
    return float(best["value"])
