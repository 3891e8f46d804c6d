"""The figures of tuning: what searching for settings bought, and how much each setting matters."""

from collections.abc import Iterator, Sequence

import numpy as np

from analysis.candidates import label
from analysis.comparison import Comparison
from analysis.palette import Figure, Palette, spans
from analysis.question import is_share
from analysis.svg import DOT, EARLY, Axis, Chart
from analysis.tuning import Trial, expected_best_curves, swept_keys
from analysis.wording import metric_value, shown

LOG_FROM = 8  # a swept number that spans more than this factor is shown on a log scale


class TuningFigures:
    """The figures about the trials of each family."""

    def __init__(
        self, comparison: Comparison, trials: dict[str, list[Trial]], palette: Palette
    ) -> None:
        self.question = comparison.question
        self.target = comparison.target
        self.tried = [trial for family in trials.values() for trial in family]
        are_candidates = set(trials) <= set(palette.series)
        self.palette = palette if are_candidates else Palette(trials)
        self.trials = dict(sorted(trials.items(), key=lambda family: self.palette[family[0]]))

    def all(self) -> Iterator[Figure]:
        metric = self.question.validation
        curves = expected_best_curves(self.trials, self.question)
        chart = Chart(
            f"expected best {metric} after k trials",
            Axis("trials", whole=True),
            Axis(metric, percent=is_share(metric)),
        )
        for family, values in curves.items():
            chart.line(self.palette[family], [(k, v) for k, v in enumerate(values, start=1)])
        if not chart.is_empty:
            note = (
                "Of k draws from the trials that were run, however these were chosen (Dodge et al. "
                "2019); a trial that broke down counts as the worst value of all."
            )
            if any(trial.is_partial for trial in self.tried):
                note += (
                    " One that was pruned counts with what it had reached by then: had all been "
                    "run to the end, no curve could be worse."
                )
            yield Figure(chart.title, note, chart.svg(), self.palette.legend(curves))
        for key in swept_keys(self.trials):
            yield from self.sensitivity(key)

    def sensitivity(self, key: str) -> Iterator[Figure]:
        metric = self.question.validation
        values = [trial.at(key) for trial in self.tried]
        wide = spans([value for value in values if value is not None], LOG_FROM)
        chart = Chart(
            f"{metric} by {key}",
            Axis(key, log=wide),
            Axis(metric, percent=is_share(metric)),
            crosses_on_top=not self.question.larger_is_better,
        )
        reached = [(t.value, t.is_partial) for t in self.tried if t.value is not None]
        full = [value for value, is_partial in reached if not is_partial]
        edge = bad_edge(full or [value for value, _ in reached], self.question.larger_is_better)
        drawn: list[str] = []
        hits: list[str] = []
        for family, trials in self.trials.items():
            known = [(at, trial) for trial in trials if (at := trial.at(key)) is not None]
            if len({at for at, _ in known}) < 2:
                continue
            drawn.append(family)
            best: dict[float, float] = {}
            for at, trial in sorted(known, key=lambda pair: pair[0]):
                tip = f"{family}, {label(trial.setting)}{', pruned' * trial.is_partial}"
                if trial.value is None:
                    chart.cross(self.palette[family], at, f"{tip}: broke down")
                    continue
                value = metric_value(metric, trial.value)
                inside = max(trial.value, edge, key=self.question.key)
                shape = EARLY if trial.is_partial else DOT
                chart.dot(self.palette[family], at, inside, f"{tip}: {value}", shape)
                if not trial.is_partial:
                    best[at] = max(best.get(at, trial.value), trial.value, key=self.question.key)
            is_grid = len({at for at, _ in known}) < len(known) or len(known[0][1].setting) == 1
            if is_grid and best:  # a line through random points would show noise
                points = [(x, max(y, edge, key=self.question.key)) for x, y in best.items()]
                chart.line(self.palette[family], points)
                hits.append(f"{family} {self.reaching(best)}")
        if not chart.is_empty:
            note = self.marks(any_line=bool(hits))
            if any(self.question.key(value) < self.question.key(edge) for value, _ in reached):
                note += f" What is worse than {metric_value(metric, edge)} is drawn there."
            if hits and self.target is not None:
                target = metric_value(metric, self.target)
                note += f" {metric} of {target} is reached: {'; '.join(hits)}."
            yield Figure(chart.title, note, chart.svg(), self.palette.legend(drawn))

    def marks(self, any_line: bool) -> str:
        """What the marks stand for that are there."""
        parts = ["A dot per trial"]
        parts += ["the line through the best"] if any_line else []
        if any(trial.is_partial for trial in self.tried):
            parts.append("hollow if it was pruned, at what it had reached by then")
        if any(trial.value is None for trial in self.tried):
            parts.append("a cross if it broke down")
        return f"{', '.join(parts)}."

    def reaching(self, best: dict[float, float]) -> str:
        """From where to where a swept number reaches the target, in words."""
        target = self.target
        good = [
            x for x, value in best.items() if self.question.key(value) >= self.question.key(target)
        ]
        if not good:
            return "nowhere"
        if len(good) == 1:
            return f"at {shown(good[0], 3)}"
        return f"from {shown(min(good), 3)} to {shown(max(good), 3)}"


def bad_edge(values: Sequence[float], larger_is_better: bool) -> float:
    """Where a figure ends, so that hopeless trials do not flatten the differences between others.

    As far beyond the median as thrice its distance from the best, or at the worst value.
    """
    if not values:
        return 0.0
    best, worst = (max(values), min(values)) if larger_is_better else (min(values), max(values))
    edge = best + 4 * (float(np.median(values)) - best)
    return max(edge, worst) if larger_is_better else min(edge, worst)
