"""The study engine: in each replicate, tune every candidate, then judge its best settings.

Samplers are seeded and measured values are in ``study.json`` and the run directories; there is no
other state. A killed study is resumed by replaying it from the start: it draws the same settings,
and reads the results of finished runs instead of repeating them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from core.overrides import text
from core.ranks import announce
from study import outlook
from study.jobs import Jobs, Run
from study.protocol import Candidate, Protocol
from study.space import Params, Space

if TYPE_CHECKING:
    import optuna


@dataclass
class Study:
    """A study in its sweep directory.

    Args:
        horizons: updates of a full run, by candidate.
        measured: ``Tuning.values`` that the study measured before it was killed, by trial name.
        tags: W&B tags of all runs.

    Attributes:
        spaces: search space of each candidate; widened if the study was extended.
    """

    protocol: Protocol
    jobs: Jobs
    horizons: dict[str, int]
    measured: dict[str, dict[int, float]]
    tags: tuple[str, ...] = ()
    spaces: Mapping[str, Space] = field(default_factory=dict)
    replicates: list[Replicate] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.spaces = {name: c.search_space for name, c in self.protocol.candidates.items()}

    def conduct(self) -> None:
        """Run the replicates one after the other, so that a killed study has complete ones."""
        for number in range(self.protocol.replicates):
            replicate = Replicate(number, self)
            self.replicates.append(replicate)
            replicate.tune()
            if not self.protocol.extend:
                replicate.repeat()
        if self.protocol.extend:
            self.extend()
            for replicate in self.replicates:
                replicate.repeat()
        if self.protocol.halving and self.protocol.halving.audit:
            self.audit()

    def extend(self) -> None:
        """Widen spaces where most replicates chose a bound, and tune all candidates again."""
        if at_bounds := self.at_bounds():
            outlook.plan(self.protocol, self.jobs.directory, rounds=2)
            beyond = [
                f"{key} of {name} ({side})"
                for name in at_bounds
                for key, side in at_bounds[name].items()
            ]
            announce(f"widening spaces beyond {', '.join(beyond)}; all candidates are tuned again")
            self.spaces = {
                name: space.widened(at_bounds.get(name, {})) for name, space in self.spaces.items()
            }
            for replicate in self.replicates:
                replicate.tune()

    def at_bounds(self) -> dict[str, dict[str, str]]:
        """Settings of each candidate that are ``low`` or ``high`` in most replicates' best trials.

        That is, within a tenth of the interval from a bound; the optimum may be beyond it.
        """
        at_bounds: dict[str, dict[str, str]] = {}
        for name, space in self.spaces.items():
            best = [b[name] for replicate in self.replicates if name in (b := replicate.best())]
            sides = Counter(pair for tuning in best for pair in space.near_bounds(tuning.params))
            if frequent := {key: side for (key, side), n in sides.items() if 2 * n > len(best)}:
                at_bounds[name] = frequent
        return at_bounds

    def audit(self) -> None:
        """Run pruned trials to the end too, now that no decision depends on them."""
        runs = [
            (tuning, replicate.run_of(tuning, self.horizons[tuning.candidate.name]))
            for replicate in self.replicates
            for tuning in replicate.tunings
            if tuning.state == "pruned"
        ]
        values = self.jobs.values_of([run for _, run in runs])
        for tuning, run in runs:
            tuning.audited = values[run.name]
            self.jobs.mark_pruned(run)

    @property
    def tunings(self) -> list[Tuning]:
        """The trials of all replicates."""
        return [tuning for replicate in self.replicates for tuning in replicate.tunings]


@dataclass
class Replicate:
    """One of a study's replicates.

    Attributes:
        trials: by candidate, in the order of their numbers.
        repeats: runs of each candidate's best settings, by candidate and seed.
        untuned: runs of each candidate's untuned settings, likewise.
    """

    number: int
    study: Study
    trials: dict[str, list[Tuning]] = field(default_factory=dict)
    repeats: dict[str, dict[int, Run]] = field(default_factory=dict)
    untuned: dict[str, dict[int, Run]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trials = {name: [] for name in self.study.protocol.candidates}

    @property
    def seed(self) -> int:
        """Seed of the trials and of their sampler."""
        return self.study.protocol.tuning_seed(self.number)

    def tune(self) -> None:
        """Run a round of trials of every candidate, in batches that hold all candidates."""
        protocol, spaces = self.study.protocol, self.study.spaces
        budgets = {
            name: protocol.budget(space) if space.dimensions or not self.trials[name] else 0
            for name, space in spaces.items()
        }
        searches = {name: self.search(space, budgets[name]) for name, space in spaces.items()}
        size = protocol.batch_size or protocol.trials
        for start in range(0, protocol.trials, size):
            batches = [
                [self.ask(name, search) for _ in range(start, min(start + size, budgets[name]))]
                for name, search in searches.items()
            ]
            self.halve(batches)
            for tuning in chain.from_iterable(batches):
                if tuning.state == "running":
                    tuning.trial.study.tell(tuning.trial, tuning.value)
                    tuning.state = "complete"

    def search(self, space: Space, trials: int) -> optuna.Study:
        """Create an Optuna study of a space; points that do not depend on results are queued."""
        import optuna

        seed = self.seed + max(map(len, self.trials.values()))  # each round has its own points
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        search = optuna.create_study(
            sampler=optuna.samplers.TPESampler(constant_liar=True, seed=seed),
            direction="maximize" if self.study.jobs.monitor.mode == "max" else "minimize",
        )
        if self.study.protocol.sampler != "tpe":
            for shares in space.design(self.study.protocol.sampler, trials, seed):
                search.enqueue_trial(space.queued(shares))
        return search

    def ask(self, name: str, search: optuna.Study) -> Tuning:
        trial, tunings = search.ask(), self.trials[name]
        candidate = self.study.protocol.candidates[name]
        params = self.study.spaces[name].suggest(trial)
        tunings.append(Tuning(candidate, self.number, len(tunings), params, trial))
        return tunings[-1]

    def halve(self, batches: list[list[Tuning]]) -> None:
        """Run every trial to the first rung, the best of each batch to the next, and so on."""
        num_rungs = 1 + len(self.study.protocol.halving.rungs) if self.study.protocol.halving else 1
        for rung in range(num_rungs):
            self.measure(chain.from_iterable(batches), rung)
            batches = [self.survivors(batch, rung) for batch in batches]

    def measure(self, tunings: Iterable[Tuning], rung: int) -> None:
        """Run trials to a rung and note their values there; failed trials keep the worst value."""
        waiting: list[tuple[Tuning, int]] = []
        for tuning in tunings:
            step = self.rung_step(tuning.candidate, rung)
            known = self.study.measured.get(tuning.name, {})
            if step in tuning.values or tuning.has_failed:
                continue
            if step in known:
                tuning.note(step, known[step])
            else:
                waiting.append((tuning, step))
        values = self.study.jobs.values_of([self.run_of(*pair) for pair in waiting])
        for tuning, step in waiting:
            tuning.note(step, values[tuning.name])

    def survivors(self, batch: list[Tuning], rung: int) -> list[Tuning]:
        """The trials of a batch that continue beyond a rung; prunes the others."""
        import optuna

        halving = self.study.protocol.halving
        step = self.rung_step(batch[0].candidate, rung) if batch else 0
        if halving is None or not batch or step == self.study.horizons[batch[0].candidate.name]:
            return batch
        ranked = sorted(
            batch,
            key=lambda t: (self.study.jobs.monitor.loss(t.values.get(step, t.value)), t.number),
        )
        kept = ranked[: math.ceil(len(batch) * halving.keep)]
        for tuning in ranked[len(kept) :]:
            if tuning.state == "running" and not tuning.has_failed:
                self.study.jobs.mark_pruned(self.run_of(tuning, step))
                tuning.trial.study.tell(tuning.trial, state=optuna.trial.TrialState.PRUNED)
                tuning.state = "pruned"
        return [tuning for tuning in batch if tuning in kept]

    def rung_step(self, candidate: Candidate, rung: int) -> int:
        rungs = self.study.protocol.rungs(self.study.horizons[candidate.name])
        return rungs[min(rung, len(rungs) - 1)]

    def run_of(self, tuning: Tuning, step: int) -> Run:
        """The run of a trial, to ``step``.

        A full run is also tested, for a figure in the report; no choice depends on that.
        """
        is_whole = step == self.study.horizons[tuning.candidate.name]
        return Run(
            tuning.name,
            (
                *tuning.candidate.run_overrides(tuning.params, "tune", self.study.tags),
                f"trainer.test={text(is_whole)}",
                f"seed={self.seed}",
            ),
            step if self.study.protocol.halving else None,
        )

    def repeat(self) -> None:
        """Run the best and the untuned settings on fresh seeds, the same for all candidates.

        Seeds are the outer loop, so that a busy hour of the machine slows all candidates alike.
        """
        seeds = self.study.protocol.fresh_seeds(self.number)
        for name, best in self.best().items():
            label = f"repeat-{best.number:03d}"
            self.repeats[name] = self.runs_on(seeds, best.candidate, best.params, "repeat", label)
            if self.study.protocol.untuned and best.candidate.search_space.dimensions:
                self.untuned[name] = self.runs_on(seeds, best.candidate, {}, "untuned", "untuned")
        in_turn = [*self.repeats.values(), *self.untuned.values()]
        self.study.jobs.run([by_seed[seed] for seed in seeds for by_seed in in_turn])

    def runs_on(
        self, seeds: list[int], candidate: Candidate, params: Params, phase: str, label: str
    ) -> dict[int, Run]:
        overrides = candidate.run_overrides(params, phase, self.study.tags)
        name = f"{candidate.name}-r{self.number}-{label}"
        return {seed: Run(f"{name}-seed{seed}", (*overrides, f"seed={seed}")) for seed in seeds}

    @property
    def tunings(self) -> list[Tuning]:
        """The trials of all candidates."""
        return [tuning for tunings in self.trials.values() for tuning in tunings]

    def best(self) -> dict[str, Tuning]:
        """The best finished trial of each candidate that has one."""
        best = {}
        for name, tunings in self.trials.items():
            finished = [t for t in tunings if t.state == "complete" and not t.has_failed]
            if finished:
                best[name] = min(
                    finished, key=lambda t: (self.study.jobs.monitor.loss(t.value), t.number)
                )
        return best


@dataclass
class Tuning:
    """A trial of a candidate: one point of its space, run on the replicate's tuning seed.

    Attributes:
        values: the monitored metric at each rung that the trial reached, by step.
        state: running, complete or pruned.
        trial: Optuna's trial.
        audited: value of a pruned trial that was run to the end for the audit.
    """

    candidate: Candidate
    replicate: int
    number: int
    params: Params
    trial: optuna.Trial
    values: dict[int, float] = field(default_factory=dict)
    state: str = "running"
    audited: float | None = None

    @property
    def name(self) -> str:
        """The name of its run."""
        return f"{self.candidate.name}-r{self.replicate}-tune-{self.number:03d}"

    @property
    def value(self) -> float:
        """The value at the last rung reached."""
        return self.values[max(self.values)]

    @property
    def has_failed(self) -> bool:
        return bool(self.values) and math.isinf(self.value)

    def note(self, step: int, value: float) -> None:
        self.values[step] = value
        self.trial.report(value, step)
