"""Figures of tuning: expected best value after k trials, and sensitivity to each setting."""

import math
from collections.abc import Iterator

import pandas as pd

from analysis.comparison import Comparison
from analysis.plot import Figure, Palette, Plot, hopeful
from analysis.question import Question
from analysis.tuning import best_by, expected_curves, swept_keys, trials_of
from analysis.words import label, listed, metric_value, shown, words


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
