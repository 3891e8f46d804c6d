"""What tuning cost and what it bought: the trials of each family of settings."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.candidates import is_number
from analysis.question import Question
from analysis.runs import BROKEN, FINISHED, REPEAT, Run, Setting
from analysis.statistics import expected_best

COUNTED = (*FINISHED, "pruned", *BROKEN)  # a trial still running or interrupted is none yet


@dataclass(frozen=True)
class Trial:
    """One setting of a family: the mean over its seeds, or None if a seed broke down.

    Of a trial that was pruned the value is what it had reached by then, no more than a bound.
    """

    setting: Setting
    value: float | None
    is_partial: bool

    def at(self, key: str) -> float | None:
        """The setting's number for ``key``."""
        found = dict(self.setting).get(key)
        return None if found is None else float(found)


Trials = dict[str, list[Trial]]  # by family


def trials_of(runs: Sequence[Run], question: Question) -> Trials:
    """The trials of every family that was tuned: that has more than one setting."""
    grouped: dict[str, dict[Setting, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run.phase != REPEAT and run.status in COUNTED:
            grouped[run.family][run.setting].append(run)
    return {
        family: [trial_of(setting, group, question) for setting, group in settings.items()]
        for family, settings in grouped.items()
        if len(settings) > 1
    }


def trial_of(setting: Setting, runs: Sequence[Run], question: Question) -> Trial:
    values = [None if run.status in BROKEN else question.validation_of(run) for run in runs]
    found = [value for value in values if value is not None]
    mean = sum(found) / len(found) if len(found) == len(values) else None
    return Trial(setting, mean, any(run.is_partial for run in runs))


def expected_best_curves(trials: Trials, question: Question) -> dict[str, list[float]]:
    """Per family, the expected best validation value after 1, 2, ... random trials.

    A trial that broke down counts as the worst value any trial of the comparison reached. One that
    was pruned counts with what it had: more steps could only have improved the best it reached.
    """
    reached = [t.value for family in trials.values() for t in family if t.value is not None]
    worst = min(reached, key=question.key, default=None)
    if worst is None:
        return {}
    return {
        family: expected_best(
            [worst if trial.value is None else trial.value for trial in group],
            question.larger_is_better,
        ).tolist()
        for family, group in trials.items()
    }


def swept_keys(trials: Trials) -> list[str]:
    """The numbers that were swept in any family, the learning rate first."""
    settings = [trial.setting for family in trials.values() for trial in family]
    keys = {k for setting in settings for k, v in setting if v is not None and is_number(v)}
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
