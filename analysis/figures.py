"""The figures of a report: which data each shows. How a chart is drawn is :mod:`analysis.svg`'s."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from analysis.candidates import label
from analysis.comparison import Comparison, Row
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
    css_class,
    mark,
)
from analysis.tuning import Trial, expected_best_curves, swept_keys
from analysis.wording import better, interval, metric_value, shown

MAX_POINTS = 240  # per line; more would only make the file larger
FEW_POINTS = 12  # up to here each point gets a dot
LOG_LOSS_FROM = 20  # a loss whose values span more than this factor is shown on a log scale
LOG_SWEEP_FROM = 8  # and a swept number
FOREST_ROW = 36
UNITS = {"step": "updates", "seconds": "training seconds"}
COSTS = (
    ("train_seconds", "training seconds"),
    ("optimizer_step_ms", "milliseconds in the optimizer per step"),
    ("state_bytes_per_parameter", "optimizer state, bytes per parameter"),
)


@dataclass(frozen=True)
class Figure:
    title: str
    note: str
    svg: Markup
    legend: tuple[tuple[str, str], ...]  # css class, name


class Figures:
    """All figures of one comparison, with the same colour for a candidate in each."""

    def __init__(self, comparison: Comparison, trials: dict[str, list[Trial]]) -> None:
        self.comparison = comparison
        self.question = comparison.question
        self.trials = trials
        self.rows = [row for row in comparison.rows if row.runs]
        self.colour = {row.name: i for i, row in enumerate(comparison.rows)}
        for family in trials:
            self.colour.setdefault(family, len(self.colour))

    @property
    def num_series(self) -> int:
        return len(self.colour)

    def css_class(self, name: str) -> str:
        return css_class(self.colour[name])

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
        for x in ("step", "seconds"):
            yield from self.over(x, metric, f"{metric} over {UNITS[x]}", seeds)
        for loss in self.metrics("train/", "loss"):
            for x in ("step", "seconds"):
                yield from self.over(x, loss, f"{loss} over {UNITS[x]}", seeds)
        for rate in self.metrics("optim/", "lr"):
            note = "As the schedule set it; the first seed of each candidate."
            yield from self.over("step", rate, f"{rate} over updates", note)

    def metrics(self, start: str, end: str) -> list[str]:
        """The recorded metrics so named; several where training has several phases."""
        columns = {str(name) for row in self.rows for run in row.runs for name in run.events}
        return sorted(name for name in columns if name.startswith(start) and name.endswith(end))

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
            series = self.colour[row.name]
            points = list(zip(curve["x"], curve["mean"], strict=True))
            if len(row.runs[:num_runs]) > 1:
                chart.band(series, points, curve["low"].tolist(), curve["high"].tolist())
            chart.line(series, points)
            if len(points) <= FEW_POINTS:
                for at, value in points:
                    tip = f"{row.name}: {metric_value(metric, value)} at {shown(at)} {UNITS[x]}"
                    chart.dot(series, at, value, tip)
        if not chart.is_empty:
            yield Figure(title, note, chart.svg(), self.legend([row.name for row, _ in curves]))

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
        front = pareto(
            [x for _, x, _ in placed],
            [value.mean for _, _, value in placed],
            self.question.larger_is_better,
        )
        chart.line(0, [(placed[i][1], placed[i][2].mean) for i in front], "front")
        for row, x, value in placed:
            if value.low is not None and value.high is not None:
                chart.line(self.colour[row.name], [(x, value.low), (x, value.high)], "whisker")
            low, high = row.cost[cost].low, row.cost[cost].high
            if low is not None and high is not None:  # a cost is never negative
                ends = [(max(low, 0.0), value.mean), (high, value.mean)]
                chart.line(self.colour[row.name], ends, "whisker")
            tip = f"{row.name}: {interval(metric, value)}, {shown(x)} {name}"
            chart.dot(self.colour[row.name], x, value.mean, tip)
        note = (
            f"{better(self.question).capitalize()}. The grey line joins what nothing beats in both."
        )
        return Figure(
            chart.title, note, chart.svg(), self.legend([row.name for row, _, _ in placed])
        )

    def tuning(self) -> Iterator[Figure]:
        """What searching for settings bought, and how much each setting matters."""
        metric = self.question.validation
        curves = expected_best_curves(self.trials, self.question)
        chart = Chart(
            f"expected best {metric} after k trials",
            Axis("trials"),
            Axis(metric, percent=is_share(metric)),
        )
        for family, values in curves.items():
            chart.line(self.colour[family], [(k, v) for k, v in enumerate(values, start=1)])
        if not chart.is_empty:
            note = (
                "Of k settings drawn at random from those tried (Dodge et al. 2019); a trial that "
                "broke down counts as the worst value of all."
            )
            yield Figure(chart.title, note, chart.svg(), self.legend(curves))
        for key in swept_keys(self.trials):
            yield from self.sensitivity(key)

    def sensitivity(self, key: str) -> Iterator[Figure]:
        metric = self.question.validation
        values = [t.at(key) for family in self.trials.values() for t in family]
        wide = spans([value for value in values if value is not None], LOG_SWEEP_FROM)
        chart = Chart(
            f"{metric} by {key}",
            Axis(key, log=wide),
            Axis(metric, percent=is_share(metric)),
            crosses_on_top=not self.question.larger_is_better,
        )
        found = [t.value for family in self.trials.values() for t in family if t.value is not None]
        edge = bad_edge(found, self.question.larger_is_better)
        drawn: list[str] = []
        hits: list[str] = []
        for family, trials in self.trials.items():
            known = [(at, trial) for trial in trials if (at := trial.at(key)) is not None]
            if len({at for at, _ in known}) < 2:
                continue
            drawn.append(family)
            best: dict[float, float] = {}
            for at, trial in sorted(known, key=lambda pair: pair[0]):
                tip = f"{family}, {label(trial.setting)}"
                if trial.value is None:
                    chart.cross(self.colour[family], at, f"{tip}: broke down")
                    continue
                value = metric_value(metric, trial.value)
                inside = max(trial.value, edge, key=self.question.key)
                chart.dot(self.colour[family], at, inside, f"{tip}: {value}")
                best[at] = max(best.get(at, trial.value), trial.value, key=self.question.key)
            is_grid = len(best) < len(known) or len(known[0][1].setting) == 1
            if is_grid:  # a line through random points would show noise
                points = [(x, max(y, edge, key=self.question.key)) for x, y in best.items()]
                chart.line(self.colour[family], points)
                hits.append(f"{family} {self.reaching(best)}")
        if not chart.is_empty:
            note = "A dot per trial, the line through the best; a cross is a trial that broke down."
            if any(self.question.key(v) < self.question.key(edge) for v in found):
                note += f" What is worse than {metric_value(metric, edge)} is drawn there."
            if hits and self.comparison.target is not None:
                target = metric_value(metric, self.comparison.target)
                note += f" {metric} of {target} is reached: {'; '.join(hits)}."
            yield Figure(chart.title, note, chart.svg(), self.legend(drawn))

    def reaching(self, best: dict[float, float]) -> str:
        """From where to where a swept number reaches the target, in words."""
        target = self.comparison.target
        good = [
            x for x, value in best.items() if self.question.key(value) >= self.question.key(target)
        ]
        if not good:
            return "nowhere"
        if len(good) == 1:
            return f"at {shown(good[0], 3)}"
        return f"from {shown(min(good), 3)} to {shown(max(good), 3)}"

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
            series = self.colour[row.name]
            parts.append(
                Markup('<text class="name" x="2" y="{}">{}</text>').format(y + 10, row.name)
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

    def legend(self, names: Iterable[str]) -> tuple[tuple[str, str], ...]:
        return tuple((self.css_class(name), name) for name in names)


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


def bad_edge(values: Sequence[float], larger_is_better: bool) -> float:
    """Where a figure ends, so that hopeless trials do not flatten the differences between others.

    As far beyond the median as thrice its distance from the best, or at the worst value.
    """
    if not values:
        return 0.0
    best, worst = (max(values), min(values)) if larger_is_better else (min(values), max(values))
    edge = best + 4 * (float(np.median(values)) - best)
    return max(edge, worst) if larger_is_better else min(edge, worst)


def spans(values: Sequence[float], factor: float) -> bool:
    return bool(values) and min(values) > 0 and max(values) >= factor * min(values)
