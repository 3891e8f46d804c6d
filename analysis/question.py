"""What runs are compared on: which metric, and which way it is better."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.runs import ReportError, Run


@dataclass(frozen=True)
class Question:
    """What the runs are compared on."""

    validation: str  # the monitored metric; it chooses settings
    test: str | None  # its twin on the test split
    is_tested: bool  # whether candidates are compared on ``test``: every one of them has it
    larger_is_better: bool
    is_monitored: bool  # whether the summary's ``best`` is of this metric

    @property
    def decides(self) -> str:
        """The metric that candidates are compared on."""
        return self.test if self.is_tested and self.test else self.validation

    def answer(self, run: Run) -> None:
        """Set the best value that a run reached on validation, and its last on test."""
        run.test = run.final(self.test) if self.test else None
        run.validation = run.number("best", "value") if self.is_monitored else None
        values = run.curve(self.validation)["value"]
        if run.validation is None and not values.empty:
            run.validation = float(values.max() if self.larger_is_better else values.min())

    def value_of(self, run: Run) -> float | None:
        return run.test if self.is_tested else run.validation

    def key(self, value: float | None) -> float:
        """Larger is better; a missing value is the worst."""
        if value is None:
            return -math.inf
        return value if self.larger_is_better else -value


def is_share(metric: str) -> bool:
    return metric.endswith("accuracy")


def twin(metric: str) -> str | None:
    """A validation metric's name on the test split."""
    return metric.replace("val/", "test/", 1) if metric.startswith("val/") else None


def ask(runs: Sequence[Run], metric: str | None = None, mode: str | None = None) -> Question:
    """Settle what the runs are compared on.

    Raises:
        ReportError: no run has finished, the runs monitor different metrics, or nothing tells
            which way is better.
    """
    if not any(run.finished for run in runs):
        raise none_finished(runs)
    monitors = Counter(run.monitor for run in runs if run.monitor)
    if metric is None:
        if not monitors:
            raise ReportError("no run recorded which metric it monitored: choose one with --metric")
        if len({name for name, _ in monitors}) > 1:
            shown = ", ".join(f"{name} ({count} runs)" for (name, _), count in monitors.items())
            raise ReportError(f"the runs monitor different metrics, {shown}: choose with --metric")
        metric = next(iter(monitors))[0]
    if mode is None:
        modes = {known_mode for name, known_mode in monitors if name == metric}
        if len(modes) != 1:
            raise ReportError(f"which way is {metric} better? Add --mode max or --mode min")
        mode = modes.pop()
    is_monitored = {name for name, _ in monitors} <= {metric}
    return Question(metric, twin(metric), False, mode == "max", is_monitored)


def none_finished(runs: Sequence[Run]) -> ReportError:
    statuses = Counter(run.status for run in runs)
    shown = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    errors = [str(run.summary["error"]) for run in runs if run.summary.get("error")]
    first = f"; the first error: {errors[0].splitlines()[0]}" if errors else ""
    return ReportError(f"no run has finished ({shown}){first}")
