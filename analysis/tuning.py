"""The trials of tuning, and their figures: expected best of k trials, and sensitivity.

A trial is one setting of a family. Its value is the mean over its seeds, or NaN if a seed diverged
or failed. The value of a pruned trial is the one it had reached, which is only a bound.
"""

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.comparison import Comparison
from analysis.plot import Figure, Palette, Plot, hopeful
from analysis.question import Question
from analysis.runs import BROKEN, FINISHED, REPEAT, UNTUNED, Run
from analysis.statistics import Estimate, estimate, expected_best
from analysis.words import label, listed, metric_value, shown, words

COUNTED = (*FINISHED, "pruned", *BROKEN)  # not those still running or interrupted
COLUMNS = ["family", "setting", "value", "is_partial"]


def trials_of(runs: Sequence[Run]) -> pd.DataFrame:
    """The trials of every tuned family, i.e. with more than one setting.

    Columns: ``COLUMNS``, then one per swept number, learning rates first.
    """
    trials = (
        tried(runs)
        .groupby(["family", "setting"], sort=False, as_index=False)
        .agg(value=("validation", mean), is_partial=("is_partial", "any"))
    )
    trials = trials[trials.groupby("family")["setting"].transform("size") > 1]
    points = [dict(setting) for setting in trials["setting"]]
    numbers = {key for point in points for key, value in point.items() if is_swept(value)}
    for key in sorted(numbers, key=lambda key: (not key.endswith("lr"), key)):
        at = [point.get(key) for point in points]
        trials = trials.assign(**{key: pd.Series(at, trials.index, dtype=float)})
    return trials


def tried(runs: Sequence[Run]) -> pd.DataFrame:
    """The runs of tuning, one a row; those that diverged or failed have NaN for values."""
    found = [run for run in runs if run.phase not in (REPEAT, UNTUNED) and run.status in COUNTED]
    table = pd.DataFrame(
        {
            "family": [run.family for run in found],
            "replicate": [run.replicate or 0 for run in found],
            "setting": pd.Series([run.setting for run in found], dtype=object),
            "is_broken": pd.Series([run.status in BROKEN for run in found], dtype=bool),
            "is_partial": [run.is_partial for run in found],
            "validation": pd.Series([run.validation for run in found], dtype=float),
            "test": pd.Series([run.test for run in found], dtype=float),
        }
    )
    table.loc[table["is_broken"], ["validation", "test"]] = math.nan
    return table


def mean(values: pd.Series) -> float:
    """NaN if any value is."""
    return float(values.mean(skipna=False))


def expected_curves(
    runs: Sequence[Run], question: Question
) -> tuple[str, dict[str, list[Estimate]]]:
    """Expected value of the best of 1, 2, ... trials, by family; a mean over replicates.

    The best trial is the one with the best validation. Its value is on test if every trial was
    tested. Diverged and failed trials count as the worst.

    Returns:
        The metric, and the curves by family.
    """
    of_runs = tried(runs)
    is_tested = question.is_tested and not of_runs.loc[~of_runs["is_broken"], "test"].isna().any()
    worth = "test" if is_tested else "validation"
    trials = of_runs.groupby(["family", "replicate", "setting"], sort=False)
    values = trials[list({"validation", worth})].agg(mean)
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


def of_tuning(comparison: Comparison, palette: Palette) -> Iterator[Figure]:
    """The expected best value after k trials, and the sensitivity to each setting."""
    question = comparison.question
    trials = trials_of(comparison.runs)
    order = palette.order
    trials = trials.sort_values("family", key=lambda names: names.map(order), kind="stable")
    if figure := tuning_cost(comparison, palette):
        yield figure
    for key in swept_keys(trials):
        families = trials.groupby("family")[key].transform("nunique")
        tried = trials[trials[key].notna() & (families > 1)]
        if tried["value"].notna().any():
            yield sensitivity(tried, key, question, comparison.target)


def tuning_cost(comparison: Comparison, palette: Palette) -> Figure | None:
    """Expected value of the best of 1, 2, ... random trials."""
    metric, found = expected_curves(comparison.runs, comparison.question)
    order = palette.order
    curves = dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))
    if not curves:
        return None
    means = [at.mean for curve in curves.values() for at in curve]
    has_bands = any(at.low is not None for curve in curves.values() for at in curve)

    def draw(plot: Plot) -> None:
        plot.x_axis("trials")
        plot.axes.locator_params(axis="x", integer=True)
        larger = comparison.question.larger_is_better
        plot.y_axis(metric, means, hopeful(means, larger), larger)
        for family, curve in curves.items():
            k = range(1, len(curve) + 1)
            if all(at.low is not None for at in curve):
                plot.band(family, k, [at.low for at in curve], [at.high for at in curve])
            plot.line(family, k, [at.mean for at in curve])

    note = (
        f"Expected {words(metric)} of the trial with the best validation among k, drawn without "
        "replacement from those that were run (Tang et al. 2020). A diverged or failed trial "
        "counts as the worst, a pruned one with the value that it had reached."
    )
    if has_bands:
        note += " Bands: 95 % intervals over replicates."
    return Figure(f"expected best {words(metric)} after k trials", note, draw, tuple(curves))


def sensitivity(tried: pd.DataFrame, key: str, question: Question, target: float) -> Figure:
    """Validation of all trials against one swept number."""
    metric, larger = question.validation, question.larger_is_better
    families = dict(list(tried.groupby("family", sort=False)))
    bests = {family: best_by(trials, key, question) for family, trials in families.items()}
    lines = {
        family: bests[family]
        for family, trials in families.items()
        # a line through random points would show noise
        if trials[key].nunique() < len(trials) or len(trials["setting"].iloc[0]) == 1
    }
    values = tried["value"].dropna().tolist()
    full = [value for best in bests.values() for value in best]
    worst = min(map(question.key, hopeful(full or values, larger)))

    def draw(plot: Plot) -> None:
        plot.x_axis(f"{words(key.rpartition('.')[2])} ({key})", tried[key].tolist())
        plot.y_axis(metric, values, [v for v in values if question.key(v) >= worst], larger)
        for family, line in lines.items():
            plot.line(family, line.index, line)
        for trial in tried.to_dict("records"):
            family, at, value = trial["family"], trial[key], trial["value"]
            tip = f"{family}, {label(trial['setting'])}{', pruned' * trial['is_partial']}"
            if math.isnan(value):
                plot.at_edge(family, at, "x", f"{tip}: diverged or failed", is_top=not larger)
            else:
                tip = f"{tip}: {metric_value(metric, value)}"
                plot.dot(family, at, value, tip, trial["is_partial"])

    outside = [
        f"{trial['family']} at {shown(trial[key], 3)}: {metric_value(metric, trial['value'])}"
        for trial in tried.dropna(subset="value").to_dict("records")
        if question.key(trial["value"]) < worst
    ]
    note = (
        "One dot per trial; hollow: pruned, at the value that it had reached; cross: diverged or "
        "failed."
    )
    if outside:
        note += f" Arrows, off scale: {listed(outside)}."
    if full and lines:
        hits = "; ".join(f"{name} {reaching(lines[name], question, target)}" for name in lines)
        value = metric_value(metric, target)
        of_value = f"{words(metric).capitalize()} of {value}"
        note += f" Lines join the best trials. {of_value} is reached: {hits}."
    return Figure(f"{words(metric)} by {key}", note, draw, tuple(families))


def reaching(best: pd.Series, question: Question, target: float) -> str:
    """The range of a swept number in which the target is reached, in words."""
    good = best.index[best.map(question.key) >= question.key(target)]
    if good.empty:
        return "nowhere"
    if len(good) == 1:
        return f"at {shown(good[0], 3)}"
    return f"from {shown(good.min(), 3)} to {shown(good.max(), 3)}"
