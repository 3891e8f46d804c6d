"""The figures of a report: results, costs, tuning and training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.comparison import Comparison
from analysis.plot import INK, SOFT, Figure, Palette, Plot, hopeful, name_axis
from analysis.question import Question
from analysis.rows import Row, unit_means
from analysis.runs import Run
from analysis.statistics import Estimate, pareto
from analysis.tuning import of_tuning
from analysis.words import interval, intervals, metric_value, shown, words

MAX_POINTS = 240  # per line; more would only make the file larger
FEW_POINTS = 12  # lines with at most this many points have a dot at each
UNITS = {"step": "updates", "seconds": "training time (s)"}
COSTS = {
    "train_seconds": "training time (s)",
    "optimizer_step_ms": "time in the optimizer (ms per update)",
    "state_bytes_per_parameter": "optimizer state (bytes per parameter)",
}
DECADES_OF_RATE = 1e-4  # lowest rate shown, as a share of the highest: schedules end near zero
FOREST_ROW = 0.44  # inches
NAME_LENGTH = 40  # characters of a name in a forest plot


def figures_of(comparison: Comparison) -> dict[str, list[Figure]]:
    """Figures by section of the page."""
    rows = [row for row in comparison.rows if row.runs]
    return {
        "result": [of_results(rows, comparison.question, comparison.unit)],
        "cost": [
            against(rows, comparison.question, cost)
            for cost in COSTS
            if sum(cost in row.cost for row in rows) > 1
        ],
        "tuning": list(of_tuning(comparison, palette_of(comparison))),
        "training": list(of_training(rows, comparison)),
    }


def palette_of(comparison: Comparison) -> Palette:
    families = [run.family for run in comparison.runs]
    return Palette([*(row.name for row in comparison.rows), *families])


@dataclass(frozen=True)
class Bar:
    """A row of a forest plot: a mean with its interval, and the individual values."""

    name: str
    text: str  # at the end of the row
    value: Estimate
    single: Sequence[float]
    note: str = ""  # after the name


def of_results(rows: Sequence[Row], question: Question, unit: str) -> Figure:
    """Forest plot of each candidate's mean, interval and individual units."""
    placed = [(row, row.value) for row in rows if row.value]
    values = [value for _, value in placed]
    bars = [
        Bar(
            row.name,
            text,
            value,
            list(unit_means(row.scores).values()),
            f" ({len(row.diverged)} diverged)" * bool(row.diverged),
        )
        for (row, value), text in zip(placed, intervals(question.decides, values), strict=True)
    ]
    good = hopeful([value.mean for value in values], question.larger_is_better)
    note = f"Mean, 95 % interval and individual {unit}s; {question.better}."
    return forest(f"{words(question.decides)} by candidate", question.decides, note, bars, good)


def forest(
    title: str, metric: str, note: str, bars: Sequence[Bar], inside: Sequence[float]
) -> Figure:
    """Forest plot: means with intervals, one row each.

    Args:
        inside: the means that the axis must resolve; others are arrows at its edge.
    """

    def draw(plot: Plot) -> None:
        axes = plot.axes
        axes.set_ylim(len(bars) - 0.5, -0.6)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        name_axis(axes.xaxis, metric)
        axes.locator_params(axis="x", nbins=6)  # more labels would touch
        across = axes.get_yaxis_transform()
        for i, bar in enumerate(bars):
            name = f"{bar.name}{bar.note}"
            short = name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"
            style: dict[str, Any] = {"transform": across, "va": "center", "color": INK}
            axes.text(0, i - 0.3, short, fontweight="bold", **style)
            axes.text(1, i - 0.3, bar.text, ha="right", **style)
            at, tip, value = i + 0.12, f"{bar.name}: {bar.text}", bar.value
            if value.mean not in inside:
                edge, arrow = (0.01, "<") if value.mean < inside[0] else (0.99, ">")
                plot.mark(bar.name, edge, at, arrow, tip, transform=across)
                continue
            rings: dict[str, Any] = {"markerfacecolor": "none", "markersize": 3.5, "alpha": 0.8}
            plot.mark(bar.name, bar.single, [at] * len(bar.single), "o", tip, **rings)
            if value.low is not None:
                ends = [value.low, value.high]
                plot.mark(bar.name, ends, [at] * 2, "-", tip, linewidth=2.2, alpha=0.55)
            plot.mark(bar.name, value.mean, at, "o", tip)

    return Figure(title, note, draw, (), 0.55 + FOREST_ROW * len(bars))


def against(rows: Sequence[Row], question: Question, cost: str) -> Figure:
    """Quality against a cost, with intervals in both and the Pareto front."""
    metric, larger = question.decides, question.larger_is_better
    placed = [(r, r.cost[cost], r.value) for r in rows if cost in r.cost and r.value]
    sound = [(x.mean, value.mean) for row, x, value in placed if not row.diverged]
    best = pareto([x for x, _ in sound], [value for _, value in sound], larger)

    def draw(plot: Plot) -> None:
        means = [value.mean for _, _, value in placed]
        plot.x_axis(COSTS[cost], [x.mean for _, x, _ in placed])
        plot.y_axis(metric, means, hopeful(means, larger), larger)
        front = [sound[i] for i in best]
        plot.axes.plot([x for x, _ in front], [y for _, y in front], ":", color=SOFT, zorder=1)
        for row, x, value in placed:
            tip = f"{row.name}: {interval(metric, value)}, {shown(x.mean)} {COSTS[cost]}"
            if value.low is not None and value.high is not None:
                plot.mark(row.name, [x.mean] * 2, [value.low, value.high], "-", tip, alpha=0.6)
            if x.low is not None and x.high is not None:
                plot.mark(row.name, [x.low, x.high], [value.mean] * 2, "-", tip, alpha=0.6)
            plot.dot(row.name, x.mean, value.mean, tip)

    note = (
        f"{question.better.capitalize()}. Bars: 95 % intervals. Dotted: Pareto front of the "
        "candidates without diverged runs."
    )
    title = f"{words(metric)} against {COSTS[cost].partition(' (')[0]}"
    return Figure(title, note, draw, tuple(row.name for row, _, _ in placed))


def of_training(rows: Sequence[Row], comparison: Comparison) -> Iterator[Figure]:
    """Curves of validation and losses, over steps and seconds, and of the learning rate."""
    validation = comparison.question.validation
    for metric in (validation, *comparison.metrics("train/", "loss")):
        larger = metric == validation and comparison.question.larger_is_better
        for x in UNITS:
            yield from curves(rows, metric, x, larger)
    for loss in comparison.metrics("train_eval/", "loss"):
        yield from curves(rows, loss, "step", larger=False)
        yield from against_fit(rows, comparison.question, loss)
    for metric in comparison.metrics("optim/", "lr"):
        yield from curves(rows, metric, "step", larger=True)


def curves(rows: Sequence[Row], metric: str, x: str, larger: bool) -> Iterator[Figure]:
    """Curves of a metric, one per candidate; no figure if none recorded it."""
    found = [(row, mean_curve(row.runs, metric)) for row in rows]
    lines = [(row, curve) for row, curve in found if not curve.empty]
    if not lines:
        return

    def draw(plot: Plot) -> None:
        every = [v for _, curve in lines for v in (*curve["low"], *curve["high"])]
        near = worth_showing([curve for _, curve in lines], metric, larger)
        plot.x_axis(UNITS[x])
        plot.y_axis(metric, every, near, larger)
        for row, curve in lines:
            if len(row.runs) > 1:
                plot.band(row.name, curve[x], curve["low"], curve["high"])
            plot.line(row.name, curve[x], curve["mean"])
            few = curve if len(curve) <= FEW_POINTS else curve.iloc[-1:]
            for place, value in zip(few[x], few["mean"], strict=True):
                if not plot.is_outside(value) or place == curve[x].iloc[-1]:
                    tip = f"{metric_value(metric, value)} at {shown(place)} {UNITS[x]}"
                    plot.dot(row.name, place, value, f"{row.name}: {tip}")

    several = any(len(row.runs) > 1 for row, _ in lines)
    note = "Mean over runs; bands: minimum to maximum." * several
    if any(row.diverged for row in rows):
        note += " Diverged runs are left out."
    title = f"{words(metric)} over {UNITS[x].partition(' (')[0]}"
    yield Figure(title, note, draw, tuple(row.name for row, _ in lines))


def against_fit(rows: Sequence[Row], question: Question, loss: str) -> Iterator[Figure]:
    """Validation against the loss on fixed training samples, over the course of training."""
    metric, larger = question.validation, question.larger_is_better
    lines = []
    for row in rows:
        runs = [run for run in row.runs if not run.curve(loss).empty]
        fit, value = (mean_curve(runs, name) for name in (loss, metric))
        if fit.empty or value.empty:
            continue
        both = value.merge(fit, on="step", suffixes=("", "_fit"))
        both = both[both["mean_fit"] == both["mean_fit"].cummin()]  # the rest would zigzag
        if not both.empty:
            lines.append((row, both))
    if not lines:
        return

    def draw(plot: Plot) -> None:
        curves = [curve for _, curve in lines]
        every = [value for curve in curves for value in curve["mean"]]
        plot.y_axis(metric, every, worth_showing(curves, metric, larger), larger)
        inside = [curve[~curve["mean"].map(plot.is_outside)] for curve in curves]
        plot.x_axis(words(loss), [value for curve in inside for value in curve["mean_fit"]])
        for (row, curve), part in zip(lines, inside, strict=True):
            plot.line(row.name, part["mean_fit"], part["mean"])
            step, fit, value = curve.iloc[-1][["step", "mean_fit", "mean"]]
            tip = f"{metric_value(metric, value)} at {shown(fit)} after {shown(step)} updates"
            plot.dot(row.name, fit, value, f"{row.name}: {tip}")

    note = (
        f"At equal training loss, the {'higher' if larger else 'lower'} curve generalizes better "
        "if the gap exceeds the noise of the curves; a curve that reaches further left fits the "
        "training data better. Means over seeds, at evaluations where the training loss was the "
        "lowest so far."
    )
    title = f"{words(metric)} against {words(loss)}"
    yield Figure(title, note, draw, tuple(row.name for row, _ in lines))


def worth_showing(curves: Sequence[pd.DataFrame], metric: str, larger: bool) -> list[float]:
    """The values that the axis of a figure of curves must resolve.

    For learning rates, their upper decades; else the values after the first tenth, of the curves
    that end well.
    """
    if metric.endswith("/lr"):
        rates = [rate for curve in curves for rate in curve["mean"]]
        return [rate for rate in rates if rate >= DECADES_OF_RATE * max(rates)]
    last = [float(curve["mean"].iloc[-1]) for curve in curves]
    good = hopeful(last, larger)
    return [
        float(value)
        for end, curve in zip(last, curves, strict=True)
        if end in good
        for value in curve["mean"].iloc[len(curve) // 10 :]
    ]


def mean_curve(runs: Sequence[Run], metric: str) -> pd.DataFrame:
    """Columns step, seconds, mean, low and high of ``metric`` at the steps that all runs recorded.

    Seconds are averaged over the runs at each step.
    """
    curves = [curve for run in runs if not (curve := run.curve(metric)).empty]
    if not curves:
        return pd.DataFrame()
    by_step = pd.concat(curves).groupby("step")
    seconds, value = by_step["seconds"], by_step["value"]
    columns = {"seconds": seconds.mean(), "mean": value.mean(), "low": value.min()}
    line = pd.DataFrame({**columns, "high": value.max()})[value.size() == len(curves)].reset_index()
    stride = -(-len(line) // MAX_POINTS) or 1
    return line[::-1][::stride][::-1]  # the last point is kept
