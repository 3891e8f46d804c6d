"""What tuning cost and what it bought: the trials of each family of settings."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.candidates import REPEAT, Member, Setting, is_number
from analysis.comparison import BROKEN
from analysis.question import Question
from analysis.runs import FINISHED
from analysis.statistics import expected_best

COUNTED = (*FINISHED, "pruned", *BROKEN)  # a trial still running or interrupted is none yet


@dataclass(frozen=True)
class Trial:
    """One setting of a family: the mean over its seeds, or None if a seed broke down.

    Of a trial that was pruned the value is what it had reached by then, no more than a bound.
    """

    setting: Setting
    value: float | None
    is_partial: bool = False

    def at(self, key: str) -> float | None:
        """The setting's number for ``key``."""
        found = dict(self.setting).get(key)
        return None if found is None else float(found)


def trials_by_family(members: Sequence[Member], question: Question) -> dict[str, list[Trial]]:
    """The trials of every family that was tuned: that has more than one setting."""
    grouped: dict[str, dict[Setting, list[Member]]] = defaultdict(lambda: defaultdict(list))
    for member in members:
        if member.phase != REPEAT and member.run.status in COUNTED:
            grouped[member.family][member.setting].append(member)
    return {
        family: [
            Trial(setting, mean(group, question), any(member.is_partial for member in group))
            for setting, group in settings.items()
        ]
        for family, settings in grouped.items()
        if len(settings) > 1
    }


def mean(members: Sequence[Member], question: Question) -> float | None:
    values = [
        None if member.run.status in BROKEN else question.validation_of(member.run)
        for member in members
    ]
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if len(found) == len(values) else None


def expected_best_curves(
    trials: dict[str, list[Trial]], question: Question
) -> dict[str, list[float]]:
    """Per family, the expected best validation value after 1, 2, ... random trials.

    A trial that broke down counts as the worst value any trial of the comparison reached. One that
    was pruned counts with what it had: more steps could only have improved the best it reached.
    """
    reached = [t.value for family in trials.values() for t in family if t.value is not None]
    if not reached:
        return {}
    worst = min(reached, key=question.key)
    return {
        family: expected_best(
            [worst if trial.value is None else trial.value for trial in group],
            question.larger_is_better,
        ).tolist()
        for family, group in trials.items()
    }


def swept_keys(trials: dict[str, list[Trial]]) -> list[str]:
    """The numbers that were swept in any family, the learning rate first."""
    keys = {
        key
        for family in trials.values()
        for trial in family
        for key, value in trial.setting
        if value is not None and is_number(value)
    }
    return sorted(keys, key=lambda key: (not key.endswith("lr"), key))


def at_the_edge(trials: Sequence[Trial], key: str, question: Question) -> str | None:
    """``lowest`` or ``highest`` if the best trial has the extreme value of ``key``.

    The optimum then may lie outside of what was searched.
    """
    known = [(at, trial) for trial in trials if (at := trial.at(key)) is not None]
    values = sorted({at for at, _ in known})
    good = [(at, t.value) for at, t in known if t.value is not None and not t.is_partial]
    if len(values) < 3 or not good:
        return None
    best = max(good, key=lambda pair: question.key(pair[1]))[0]
    return {values[0]: "lowest", values[-1]: "highest"}.get(best)
