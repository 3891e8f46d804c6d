"""The course of a study: tune every candidate, then repeat its best setting over fresh seeds.

Trials and how they ended are in Optuna's journal, the measurements of a run in its directory; no
other state is kept. A study that was killed is resumed by going through it from the start: runs
that have ended are read, not run again.
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
from study.space import DESIGNS, Params, text

if TYPE_CHECKING:
    import optuna

JOURNAL = "optuna.journal"


@dataclass
class Tuning:
    """A trial of a candidate: one point of its space, run on every tuning seed.

    Attributes:
        values: the monitored metric's mean at each rung that the trial reached, by step.
        state: running, complete or pruned.
        audited: of a pruned trial, what it reached when it was run to the end all the same.
    """

    candidate: Candidate
    number: int
    params: Params
    trial: optuna.Trial
    values: dict[int, float]
    state: str
    audited: float | None = None

    @property
    def name(self) -> str:
        return f"{self.candidate.name}-tune-{self.number:03d}"

    @property
    def value(self) -> float:
        """At the last rung that was reached."""
        return self.values[max(self.values)]

    @property
    def has_failed(self) -> bool:
        return bool(self.values) and math.isinf(self.value)


@dataclass
class Study:
    """A study in its sweep directory.

    Args:
        horizons: updates of a full run, by candidate.
        keep: called before any runs start, so that a report knows their place while they run.
        tags: W&B tags that all runs have.

    Attributes:
        repeats: the runs of each candidate's best setting, by seed.
    """

    protocol: Protocol
    monitor: Monitor
    jobs: Jobs
    horizons: dict[str, int]
    keep: Callable[[Study], None]
    tags: tuple[str, ...] = ()
    trials: dict[str, list[Tuning]] = field(default_factory=dict)
    repeats: dict[str, dict[int, Run]] = field(default_factory=dict)

    def tune(self) -> None:
        """Try every candidate's trials, batch by batch, all candidates side by side."""
        studies = {c.name: self.open(c) for c in self.protocol.candidates.values()}
        size = self.protocol.batch_size or self.protocol.trials
        for start in range(0, self.protocol.trials, size):
            batches = []
            for candidate in self.protocol.candidates.values():
                study = studies[candidate.name]
                numbers = range(start, min(start + size, self.number_of_trials(candidate)))
                batches.append([self.trial(study, candidate, number) for number in numbers])
                self.trials.setdefault(candidate.name, []).extend(batches[-1])
            self.halve(batches)
            for tuning in (tuning for batch in batches for tuning in batch):
                if tuning.state == "running":
                    studies[tuning.candidate.name].tell(tuning.trial, tuning.value)
                    tuning.state = "complete"

    def open(self, candidate: Candidate) -> optuna.Study:
        """The candidate's study in the journal, with the points of a design waiting in it."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            study_name=candidate.name,
            storage=JournalStorage(JournalFileBackend(str(self.jobs.directory / JOURNAL))),
            sampler=optuna.samplers.TPESampler(constant_liar=True, seed=self.protocol.sampler_seed),
            direction="maximize" if self.monitor.mode == "max" else "minimize",
            load_if_exists=True,
        )
        for points in self.design(candidate)[len(study.trials) :]:
            study.enqueue_trial(candidate.search_space.queued(points))
        # a resumed sampler must not draw the same numbers again
        study.sampler = optuna.samplers.TPESampler(
            constant_liar=True, seed=self.protocol.sampler_seed + len(study.trials)
        )
        return study

    def design(self, candidate: Candidate) -> list[Params]:
        protocol = self.protocol
        if protocol.sampler not in DESIGNS:
            return []
        return candidate.search_space.design(
            protocol.sampler, protocol.trials, protocol.sampler_seed
        )

    def number_of_trials(self, candidate: Candidate) -> int:
        """The budget; a grid may be smaller."""
        return len(self.design(candidate)) or self.protocol.trials

    def trial(self, study: optuna.Study, candidate: Candidate, number: int) -> Tuning:
        """Trial ``number``: as the journal has it, or asked of the sampler."""
        import optuna

        known = study.get_trials(deepcopy=False)
        if number < len(known) and known[number].state.name != "WAITING":
            trial = optuna.Trial(study, known[number]._trial_id)
            state, values = known[number].state.name.lower(), known[number].intermediate_values
        else:
            trial, state, values = study.ask(), "running", {}
        if "params" not in trial.user_attrs:
            trial.set_user_attr("params", candidate.search_space.suggest(trial))
        return Tuning(candidate, number, trial.user_attrs["params"], trial, dict(values), state)

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
            if step not in tuning.values and not tuning.has_failed:
                waiting[step, tuning.candidate.name, tuning.number] = tuning
        runs = {key: self.runs_of(tuning, key[0]) for key, tuning in waiting.items()}
        summaries = self.run([run for of_trial in runs.values() for run in of_trial])
        for key, tuning in waiting.items():
            value = fmean(value_of(summaries[run.name], self.monitor) for run in runs[key])
            tuning.values[key[0]] = value
            tuning.trial.report(value, key[0])

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
                for run in self.runs_of(tuning, step):
                    self.jobs.amend(run, status="pruned")
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
            for run in of_trial:
                if summaries[run.name]["status"] == "completed":
                    self.jobs.amend(run, status="pruned")  # which is what the study made of it

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


def value_of(summary: Summary, monitor: Monitor) -> float:
    """The best value a run reached; the worst possible one if it failed or diverged."""
    best = summary.get("best")
    if summary.get("status") in ("failed", "diverged") or not best or best["value"] is None:
        return monitor.worst
    return float(best["value"])
