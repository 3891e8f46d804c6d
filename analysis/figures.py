"""The figures of a report: what was reached, at what cost, how training went."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.comparison import Comparison, Row
from analysis.looks import INK, Palette
from analysis.plot import LOG_FROM, Figure, Plot, spans
from analysis.question import Question, is_share
from analysis.runs import Run
from analysis.statistics import Estimate, pareto
from analysis.wording import (
    better,
    interval,
    intervals,
    metric_value,
    shown,
    slug,
    with_fate,
    words,
)

MAX_POINTS = 240  # per line; more would only make the file larger
FEW_POINTS = 12  # up to here each point gets a dot
UNITS = {"step": "updates", "seconds": "training time (s)"}
COSTS = (
    ("train_seconds", "training time (s)"),
    ("optimizer_step_ms", "time in the optimizer (ms an update)"),
    ("state_bytes_per_parameter", "optimizer state (bytes a parameter)"),
)
FOREST_ROW = 0.44  # inches
NAME_LENGTH = 40  # letters of a candidate beside its value


class Figures:
    """The figures of one comparison but for tuning's."""

    def __init__(self, comparison: Comparison, palette: Palette) -> None:
        self.comparison = comparison
        self.question = comparison.question
        self.rows = [row for row in comparison.rows if row.runs]
        self.palette = palette

    def costs(self) -> Iterator[Figure]:
        for cost, label in COSTS:
            if figure := self.against(cost, label):
                yield figure

    def curves(self) -> Iterator[Figure]:
        """Training as it went: validation, loss and rate, over steps and over seconds."""
        validation = self.question.validation
        for x in UNITS:
            yield from self.over(x, validation)
        for loss in self.comparison.metrics("train/", "loss"):
            for x in UNITS:
                yield from self.over(x, loss)
        for rate in self.comparison.metrics("optim/", "lr"):
            yield from self.over("step", rate)

    def over(self, x: str, metric: str) -> Iterator[Figure]:
        is_rate = metric.startswith("optim/")
        found = [
            (row, mean_curve(row.runs[:1] if is_rate else row.runs, metric, x)) for row in self.rows
        ]
        curves = [(row, curve) for row, curve in found if not curve.empty]
        if not curves:
            return
        note = "As the schedule set it; the first seed of each candidate."
        if not is_rate:
            several = any(len(row.runs) > 1 for row, _ in curves)
            note = "Mean over seeds; bands from the lowest to the highest seed." * several
            if any(row.num_diverged for row in self.rows):
                note += " Seeds that diverged are left out."

        larger = metric == self.question.validation and self.question.larger_is_better

        def draw(plot: Plot) -> None:
            every = [v for _, curve in curves for v in (*curve["low"], *curve["high"])]
            plot.scale_x(UNITS[x], [], log=False)
            if is_rate:
                plot.scale_rate(metric, every)
            else:
                edge = bad_edge([float(curve["mean"].iloc[-1]) for _, curve in curves], larger)
                near = worth_seeing([curve for _, curve in curves], edge, larger)
                plot.scale_y(metric, near)
                plot.focus(every, larger, (min if larger else max)(near))
            for row, curve in curves:
                at, means = curve["x"].tolist(), curve["mean"].tolist()
                if len(row.runs) > 1 and not is_rate:
                    plot.band(row.name, at, curve["low"].tolist(), curve["high"].tolist())
                plot.line(row.name, at, means)
                for i, (place, value) in enumerate(zip(at, means, strict=True), start=1):
                    is_end = i == len(at) and not is_rate
                    if is_end or (len(at) <= FEW_POINTS and not plot.is_outside(value)):
                        tip = f"{metric_value(metric, value)} at {shown(place)} {UNITS[x]}"
                        plot.dot(row.name, place, value, f"{row.name}: {tip}")

        title = f"{words(metric)} over {UNITS[x].partition(' (')[0]}"
        yield Figure(slug(title), title, note, draw, tuple(row.name for row, _ in curves))

    def against(self, cost: str, label: str) -> Figure | None:
        metric, larger = self.question.decides, self.question.larger_is_better
        placed = [
            (row, row.cost[cost], value)
            for row in self.rows
            if cost in row.cost and (value := self.comparison.value(row)) is not None
        ]
        if len(placed) < 2:
            return None
        sound = [(x.mean, value.mean) for row, x, value in placed if not row.num_diverged]
        best = pareto([x for x, _ in sound], [value for _, value in sound], larger)

        def draw(plot: Plot) -> None:
            means = [value.mean for _, _, value in placed]
            costs = [x.mean for _, x, _ in placed]
            ends = [end for _, x, _ in placed for end in (x.low, x.high) if end]
            plot.scale_x(label, [*costs, *ends], log=spans(costs, LOG_FROM))
            plot.scale_y(metric, means)
            plot.focus(means, larger, bad_edge(means, larger))
            plot.front([sound[i][0] for i in best], [sound[i][1] for i in best])
            for row, x, value in placed:
                whiskers = {"width": 1.2, "alpha": 0.6}
                if value.low is not None and value.high is not None:
                    plot.line(row.name, [x.mean] * 2, [value.low, value.high], **whiskers)
                if x.low is not None and x.high is not None:
                    plot.line(row.name, [x.low, x.high], [value.mean] * 2, **whiskers)
                tip = f"{row.name}: {interval(metric, value)}, {shown(x.mean)} {label}"
                plot.dot(row.name, x.mean, value.mean, tip)

        note = f"{better(self.question).capitalize()}. Dotted: the Pareto front."
        if len(sound) < len(placed):
            note += " Candidates with seeds that diverged are no part of it."
        title = f"{words(metric)} against {label.partition(' (')[0]}"
        return Figure(slug(title), title, note, draw, tuple(row.name for row, _, _ in placed))

    def forest(self) -> Figure:
        """The headline: each candidate's mean and interval, and its seeds, on one scale."""
        metric = self.question.decides
        rows = [(row, value) for row in self.rows if (value := self.comparison.value(row))]
        texts = intervals(metric, [value for _, value in rows])
        title = f"{words(metric)} by candidate"
        note = f"Mean, 95 % interval and the single seeds; {better(self.question)}."
        return Figure(
            slug(title),
            title,
            note,
            lambda plot: draw_forest(plot, rows, self.question, texts),
            (),
            height=0.55 + FOREST_ROW * len(rows),
        )


def draw_forest(
    plot: Plot, rows: Sequence[tuple[Row, Estimate]], question: Question, texts: Sequence[str]
) -> None:
    """A line for each candidate: its name and value in words, then seeds, interval and mean."""
    axes = plot.axes
    plot.metric = question.decides
    edge = bad_edge([value.mean for _, value in rows], question.larger_is_better)
    near = [
        number
        for row, value in rows
        if question.key(value.mean) >= question.key(edge)
        for number in (value.mean, *seed_values(row, question))
    ]
    spread = max(near) - min(near) or abs(near[0]) * 0.05 or 1.0
    ends = [end for _, value in rows for end in (value.low, value.high) if end is not None]
    # an interval of two seeds may be many times as wide as all that was measured
    start = max(min([*near, *ends]), min(near) - spread) - 0.04 * spread
    stop = min(max([*near, *ends]), max(near) + spread) + 0.04 * spread
    axes.set_xlim(plot.percent(start), plot.percent(stop))
    axes.set_ylim(len(rows) - 0.5, -0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"{words(plot.metric)}{' (%)' if is_share(plot.metric) else ''}")
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "color": INK}
    for i, ((row, value), text) in enumerate(zip(rows, texts, strict=True)):
        look = plot.palette[row.name]
        name = with_fate(row)
        short = name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"
        axes.text(0, i - 0.3, short, fontweight="bold", **place)
        axes.text(1, i - 0.3, text, ha="right", **place)
        if not start <= value.mean <= stop:
            is_left = value.mean < start
            at = 0.01 if is_left else 0.99
            marker = "<" if is_left else ">"
            transform = axes.get_yaxis_transform()
            (drawn,) = axes.plot(at, i + 0.12, marker, color=look.colour, transform=transform)
            drawn.set_gid(f"{look.css_class}|{row.name}: {text}")
            continue
        seeds = seed_values(row, question)
        (rings,) = axes.plot(plot.percent(seeds), [i + 0.12] * len(seeds), "o", color=look.colour)
        rings.set(markerfacecolor="none", markersize=3.5, alpha=0.8)
        if value.low is not None and value.high is not None:
            ends_of_row = plot.percent([value.low, value.high])
            axes.plot(ends_of_row, [i + 0.12] * 2, color=look.colour, linewidth=2.2, alpha=0.55)
        (drawn,) = axes.plot(plot.percent(value.mean), i + 0.12, "o", color=look.colour)
        drawn.set_gid(f"{look.css_class}|{row.name}: {text}")


def seed_values(row: Row, question: Question) -> list[float]:
    return [value for run in row.runs if (value := question.value_of(run)) is not None]


def mean_curve(runs: Sequence[Run], metric: str, x: str) -> pd.DataFrame:
    """Columns x, mean, low and high of ``metric`` over the steps that every run recorded.

    Runs of a candidate take different times: seconds are the mean of the runs' at a step.
    """
    curves = [curve for run in runs if not (curve := run.curve(metric)).empty]
    if not curves:
        return pd.DataFrame()
    by_step = pd.concat(curves).groupby("step", as_index=False)
    line = by_step.agg(
        seconds=("seconds", "mean"),
        mean=("value", "mean"),
        low=("value", "min"),
        high=("value", "max"),
        n=("value", "size"),
    )
    line = line[line["n"] == len(curves)].assign(x=lambda line: line[x])
    stride = -(-len(line) // MAX_POINTS) or 1
    return line[(np.arange(len(line)) - len(line) + 1) % stride == 0]  # the last point is kept


def worth_seeing(
    curves: Sequence[pd.DataFrame], edge: float, larger_is_better: bool
) -> list[float]:
    """Values from the first tenth on, of the curves that end no worse than ``edge``."""
    sign = 1 if larger_is_better else -1
    return [
        float(value)
        for curve in curves
        if sign * curve["mean"].iloc[-1] >= sign * edge
        for value in curve["mean"].iloc[len(curve) // 10 :]
    ]


def bad_edge(values: Sequence[float], larger_is_better: bool) -> float:
    """Where a figure ends, so that hopeless values do not flatten the differences between others.

    As far beyond the median as thrice its distance from the best, or at the worst value.
    """
    if not values:
        return 0.0
    best, worst = (max(values), min(values)) if larger_is_better else (min(values), max(values))
    edge = best + 4 * (float(np.median(values)) - best)
    return max(edge, worst) if larger_is_better else min(edge, worst)
