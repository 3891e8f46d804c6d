"""The trials of tuning, and the expected value of the best of k.

A trial is one setting of a family. Its value is the mean over its seeds, or NaN if a seed diverged
or failed. The value of a pruned trial is the one it had reached, which is only a bound.
"""

from collections.abc import Sequence

import pandas as pd

from analysis.question import Question
from analysis.runs import BROKEN, FINISHED, REPEAT, UNTUNED, Run
from analysis.statistics import Estimate, estimate, expected_best

COUNTED = (*FINISHED, "pruned", *BROKEN)  # not those still running or interrupted
COLUMNS = ["family", "setting", "value", "is_partial"]


def trials_of(runs: Sequence[Run]) -> pd.DataFrame:
    """The trials of every tuned family, i.e. with more than one setting.

    Columns: ``COLUMNS``, then one per swept number, learning rates first.
    """
    rows = [
        (run.family, run.setting, None if run.status in BROKEN else run.validation, run.is_partial)
        for run in runs
        if run.phase not in (REPEAT, UNTUNED) and run.status in COUNTED
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


def expected_curves(
    runs: Sequence[Run], question: Question
) -> tuple[str, dict[str, list[Estimate]]]:
    """Expected value of the best of 1, 2, ... trials, by family; a mean over replicates.

    The best trial is the one with the best validation. Its value is on test if every trial was
    tested. Diverged and failed trials count as the worst.

    Returns:
        The metric, and the curves by family.
    """
    tried = [run for run in runs if run.phase not in (REPEAT, UNTUNED) and run.status in COUNTED]
    rows = [
        (
            run.family,
            run.replicate or 0,
            run.setting,
            run.status in BROKEN,
            run.validation,
            run.test,
        )
        for run in tried
    ]
    columns = ["family", "replicate", "setting", "broken", "validation", "test"]
    of_runs = pd.DataFrame(rows, columns=columns).astype({"validation": float, "test": float})
    of_runs.loc[of_runs["broken"], ["validation", "test"]] = None
    is_tested = question.is_tested and not of_runs.loc[~of_runs["broken"], "test"].isna().any()
    worth = "test" if is_tested else "validation"
    trials = of_runs.groupby(["family", "replicate", "setting"], sort=False)[
        list({"validation", worth})
    ]
    values = trials.agg(lambda values: values.mean(skipna=False))
    worst = values.min() if question.larger_is_better else values.max()
    values = values.fillna(worst).dropna()
    curves = {}
    for family, of_family in values.groupby("family", sort=False):
        by_replicate = [
            expected_best(of["validation"].tolist(), question.larger_is_better, of[worth].tolist())
            for _, of in of_family.groupby("replicate")
        ]
        if max(map(len, by_replicate)) > 1:
            # an unfinished replicate has fewer trials
            curves[str(family)] = [estimate(at) for at in zip(*by_replicate, strict=False)]
    return question.decides if is_tested else question.validation, curves


def is_swept(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def swept_keys(trials: pd.DataFrame) -> list[str]:
    return [str(column) for column in trials.columns[len(COLUMNS) :]]


def best_by(trials: pd.DataFrame, key: str, question: Question) -> pd.Series:
    """The best value at each value of ``key``, among trials that ran to the end."""
    full = trials[~trials["is_partial"]].dropna(subset=[key, "value"]).groupby(key)["value"]
    return full.max() if question.larger_is_better else full.min()


def at_the_edge(trials: pd.DataFrame, key: str, question: Question) -> str | None:
    """``lowest`` or ``highest`` if the best trial has the extreme value of ``key``.

    The optimum may then lie outside the searched range.
    """
    best = best_by(trials, key, question)
    if trials[key].nunique() < 3 or best.empty:
        return None
    at = best.idxmax() if question.larger_is_better else best.idxmin()
    return {trials[key].min(): "lowest", trials[key].max(): "highest"}.get(at)
