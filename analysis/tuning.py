"""What tuning cost and what it bought: the trials of each family of settings.

A trial is one setting of a family; its value is the mean over its seeds, or NaN if a seed broke
down. Of a trial that was pruned it is what the trial had reached by then, no more than a bound.
"""

from collections.abc import Sequence

import pandas as pd

from analysis.question import Question
from analysis.runs import BROKEN, FINISHED, REPEAT, Run

COUNTED = (*FINISHED, "pruned", *BROKEN)  # a trial still running or interrupted is none yet
COLUMNS = ["family", "setting", "value", "is_partial"]


def trials_of(runs: Sequence[Run]) -> pd.DataFrame:
    """The trials of every family that was tuned: that has more than one setting.

    ``COLUMNS``, and one for each swept number, the learning rate first.
    """
    rows = [
        (run.family, run.setting, None if run.status in BROKEN else run.validation, run.is_partial)
        for run in runs
        if run.phase != REPEAT and run.status in COUNTED
    ]
    of_runs = pd.DataFrame(rows, columns=COLUMNS).astype({"value": float})
    trials = of_runs.groupby(["family", "setting"], sort=False, as_index=False).agg(
        value=("value", lambda values: values.mean(skipna=False)), is_partial=("is_partial", "any")
    )
    trials = trials[trials.groupby("family")["setting"].transform("size") > 1]
    points = [dict(setting) for setting in trials["setting"]]
    numbers = {key for point in points for key, value in point.items() if is_swept(value)}
    for key in sorted(numbers, key=lambda key: (not key.endswith("lr"), key)):
        at = [point.get(key) for point in points]
        trials = trials.assign(**{key: pd.Series(at, trials.index, dtype=float)})
    return trials


def is_swept(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def swept_keys(trials: pd.DataFrame) -> list[str]:
    return [str(column) for column in trials.columns[len(COLUMNS) :]]


def best_by(trials: pd.DataFrame, key: str, question: Question) -> pd.Series:
    """The best value at each value of a setting, of the trials that were run to the end."""
    full = trials[~trials["is_partial"]].dropna(subset=[key, "value"]).groupby(key)["value"]
    return full.max() if question.larger_is_better else full.min()


def at_the_edge(trials: pd.DataFrame, key: str, question: Question) -> str | None:
    """``lowest`` or ``highest`` if the best trial has the extreme value of ``key``.

    The optimum then may lie outside of what was searched.
    """
    best = best_by(trials, key, question)
    if trials[key].nunique() < 3 or best.empty:
        return None
    at = best.idxmax() if question.larger_is_better else best.idxmin()
    return {trials[key].min(): "lowest", trials[key].max(): "highest"}.get(at)
