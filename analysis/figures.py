"""The figures of a report: which data each shows. How a chart is drawn is :mod:`analysis.svg`'s."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup

from analysis.comparison import Comparison, Row
from analysis.palette import Figure, Palette, spans
from analysis.question import is_share
from analysis.runs import Run
from analysis.statistics import pareto
from analysis.svg import (
    DOT,
    GRID,
    OPENING,
    RIGHT,
    SEED,
    TICK,
    TOP,
    WIDTH,
    Axis,
    Chart,
    mark,
)
from analysis.wording import better, interval, metric_value, shown, with_fate

MAX_POINTS = 240  # per line; more would only make the file larger
FEW_POINTS = 12  # up to here each point gets a dot
LOG_LOSS_FROM = 20  # a loss whose values span more than this factor is shown on a log scale
FOREST_ROW = 36
UNITS = {"step": "updates", "seconds": "training seconds"}
COSTS = (
    ("train_seconds", "training seconds"),
    ("optimizer_step_ms", "milliseconds in the optimizer per step"),
    ("state_bytes_per_parameter", "optimizer state, bytes per parameter"),
)


class Figures:
    """The figures of one comparison but for tuning's."""

    def __init__(self, comparison: Comparison, palette: Palette) -> None:
        self.comparison = comparison
        self.question = comparison.question
        self.rows = [row for row in comparison.rows if row.runs]
        self.palette = palette

    def quality(self) -> Iterator[Figure]:
        """What was reached, then against what it cost."""
        yield self.forest()
        for cost, name in COSTS:
            figure = self.against(cost, name)
            if figure is not None:
                yield figure

    def curves(self) -> Iterator[Figure]:
        """Training as it went: validation, loss and rate, over steps and over seconds."""
        metric = self.question.validation
        seeds = "Mean over seeds; the band reaches from the lowest to the highest of them."
        if any(row.num_diverged for row in self.rows):
            seeds += " Seeds that diverged are not among them."
        for x in ("step", "seconds"):
            yield from self.over(x, metric, f"{metric} over {UNITS[x]}", seeds)
        for loss in self.comparison.metrics("train/", "loss"):
            for x in ("step", "seconds"):
                yield from self.over(x, loss, f"{loss} over {UNITS[x]}", seeds)
        for rate in self.comparison.metrics("optim/", "lr"):
            note = "As the schedule set it; the first seed of each candidate."
            yield from self.over("step", rate, f"{rate} over updates", note)

    def over(self, x: str, metric: str, title: str, note: str) -> Iterator[Figure]:
        num_runs = 1 if metric.startswith("optim/") else None
        curves = [(row, mean_curve(row.runs[:num_runs], metric, x)) for row in self.rows]
        curves = [(row, curve) for row, curve in curves if not curve.empty]
        lows = [curve["low"].min() for _, curve in curves]
        highs = [curve["high"].max() for _, curve in curves]
        wide = metric.endswith("loss") and spans(lows + highs, LOG_LOSS_FROM)
        y = Axis(metric, log=wide, percent=is_share(metric))
        chart = Chart(title, Axis(UNITS[x]), y)
        for row, curve in curves:
            series = self.palette[row.name]
            points = list(zip(curve["x"], curve["mean"], strict=True))
            if len(row.runs[:num_runs]) > 1:
                chart.band(series, points, curve["low"].tolist(), curve["high"].tolist())
            chart.line(series, points)
            if len(points) <= FEW_POINTS:
                for at, value in points:
                    tip = f"{row.name}: {metric_value(metric, value)} at {shown(at)} {UNITS[x]}"
                    chart.dot(series, at, value, tip)
        if not chart.is_empty:
            yield Figure(
                title, note, chart.svg(), self.palette.legend([row.name for row, _ in curves])
            )

    def against(self, cost: str, name: str) -> Figure | None:
        metric = self.question.decides
        chart = Chart(
            f"{metric} against {name}", Axis(name), Axis(metric, percent=is_share(metric))
        )
        placed = [
            (row, row.cost[cost].mean, value)
            for row in self.rows
            if cost in row.cost and (value := self.comparison.value(row)) is not None
        ]
        if len(placed) < 2:
            return None
        sound = [(x, value.mean) for row, x, value in placed if not row.num_diverged]
        costs, values = [x for x, _ in sound], [value for _, value in sound]
        front = pareto(costs, values, self.question.larger_is_better)
        chart.line(0, [sound[i] for i in front], "front")
        for row, x, value in placed:
            if value.low is not None and value.high is not None:
                chart.line(self.palette[row.name], [(x, value.low), (x, value.high)], "whisker")
            low, high = row.cost[cost].low, row.cost[cost].high
            if low is not None and high is not None:
                ends = [(low, value.mean), (high, value.mean)]
                chart.line(self.palette[row.name], ends, "whisker")
            tip = f"{row.name}: {interval(metric, value)}, {shown(x)} {name}"
            chart.dot(self.palette[row.name], x, value.mean, tip)
        note = (
            f"{better(self.question).capitalize()}. The grey line joins what nothing beats in both."
        )
        if len(sound) < len(placed):
            note += " It passes over candidates with seeds that diverged."
        return Figure(
            chart.title, note, chart.svg(), self.palette.legend([row.name for row, _, _ in placed])
        )

    def forest(self) -> Figure:
        """The headline: each candidate's mean and interval, and its seeds, on one scale."""
        metric = self.question.decides
        axis = Axis(metric, percent=is_share(metric))
        rows = [(row, value) for row in self.rows if (value := self.comparison.value(row))]
        for row, value in rows:
            for edge in (value.mean, value.low, value.high, *self.seed_values(row)):
                if edge is not None:
                    axis.include(edge)
        axis.settle(0.03)
        bottom = TOP + FOREST_ROW * len(rows)

        def across(value: float) -> float:
            return RIGHT + axis.position(value) * (WIDTH - 2 * RIGHT)

        title = f"{metric} by candidate"
        size = (WIDTH, bottom + 22)
        parts = [Markup(OPENING).format(*size, title)]
        for at, text in axis.ticks():
            parts.append(Markup(GRID).format(across(at), bottom))
            parts.append(Markup(TICK).format(across(at), bottom + 16, text))
        for i, (row, value) in enumerate(rows):
            y = TOP + FOREST_ROW * i
            series = self.palette[row.name]
            parts.append(
                Markup('<text class="name" x="2" y="{}">{}</text>').format(y + 10, with_fate(row))
            )
            y += 22
            for seed in self.seed_values(row):
                parts.append(mark(SEED, series, across(seed), y))
            if value.low is not None and value.high is not None:
                d = f"M{across(value.low):.1f},{y}H{across(value.high):.1f}"
                parts.append(mark('<path class="interval {}" d="{}"/>', series, d))
            tip = f"{row.name}: {interval(metric, value)}"
            parts.append(mark(DOT, series, across(value.mean), y, tip))
        note = f"Mean, 95 % interval and the single seeds; {better(self.question)}."
        return Figure(title, note, Markup("").join([*parts, Markup("</svg>")]), ())

    def seed_values(self, row: Row) -> list[float]:
        return [value for run in row.runs if (value := self.question.value_of(run)) is not None]


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
