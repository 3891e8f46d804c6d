"""The course of a study: replicate by replicate, tune every candidate and judge what was chosen.

The samplers are seeded, what was measured is in ``study.json`` and in the run directories; no other
state is kept. A study that was killed is resumed by going through it from the start: it asks for
the same settings, and runs that have ended are read, not run again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from study.jobs import Jobs
from study.protocol import Protocol
from study.replicate import Replicate, Tuning
from study.space import Space


@dataclass
class Study:
    """A study in its sweep directory.

    Args:
        horizons: updates of a full run, by candidate.
        measured: the ``values`` of trials that a killed study had measured, by their names.
        tags: W&B tags that all runs have.

    Attributes:
        spaces: what is searched, by candidate; wider than at first where the study was extended.
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
        """All replicates, one after the other: a study that is killed has whole ones."""
        for number in range(self.protocol.replicates):
            replicate = Replicate(
                number=number,
                protocol=self.protocol,
                jobs=self.jobs,
                horizons=self.horizons,
                measured=self.measured,
                tags=self.tags,
            )
            self.replicates.append(replicate)
            replicate.tune(self.spaces)
            if not self.protocol.extend:
                replicate.repeat()
        if self.protocol.extend:
            self.extend()
            for replicate in self.replicates:
                replicate.repeat()
        if self.protocol.halving and self.protocol.halving.audit:
            self.audit()

    def extend(self) -> None:
        """Widen spaces where most replicates chose a bound, and tune all candidates once more."""
        if at_bounds := self.at_bounds():
            self.spaces = {
                name: space.widened(at_bounds.get(name, {})) for name, space in self.spaces.items()
            }
            for replicate in self.replicates:
                replicate.tune(self.spaces)

    def at_bounds(self) -> dict[str, dict[str, str]]:
        """Settings by candidate that are ``low`` or ``high`` in most replicates' best trials.

        That is within a tenth of a bound of the space; the optimum may lie beyond it.
        """
        found: dict[str, dict[str, str]] = {}
        for name, space in self.spaces.items():
            best = [b[name] for replicate in self.replicates if name in (b := replicate.best())]
            sides = Counter(pair for tuning in best for pair in space.near_bounds(tuning.params))
            if often := {key: side for (key, side), n in sides.items() if 2 * n > len(best)}:
                found[name] = often
        return found

    def audit(self) -> None:
        """Run the pruned trials to the end as well, now that no decision depends on them."""
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
