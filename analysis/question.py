"""The metric that runs are compared on, and whether larger or smaller is better."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.runs import REPEAT, TUNE, UNFINISHED, UNTUNED, ReportError, Run


@dataclass(frozen=True)
class Question:
    """What the runs are compared on."""

    validation: str  # the monitored metric, on which settings are selected
    test: str | None  # the same metric on the test split
    larger_is_better: bool
    is_tested: bool = False  # whether ``test`` is compared: all candidates have it

    @property
    def decides(self) -> str:
        """The metric that candidates are compared on."""
        return self.test if self.is_tested and self.test else self.validation

    @property
    def better(self) -> str:
        return "higher is better" if self.larger_is_better else "lower is better"

    def answer(self, run: Run) -> None:
        """Set a run's best validation value and its test value."""
        run.test = run.number(self.test) if self.test else None
        if run.summary.get("monitor") == self.validation:
            run.validation = run.number("best", "value")
        elif len(values := run.points(self.validation)[:, 2]):
            run.validation = float(values.max() if self.larger_is_better else values.min())

    def value_of(self, run: Run) -> float | None:
        return run.test if self.is_tested else run.validation

    def key(self, value: float | None) -> float:
        """Sort key: larger is better, missing is worst. Applied twice, it gives the value."""
        if value is None:
            return -math.inf
        return value if self.larger_is_better else -value


def ask(runs: Sequence[Run], metric: str | None, mode: str | None) -> Question:
    """Determine what the runs are compared on."""
    judged = [run for run in reported(runs) if run.phase != UNTUNED]
    if not any(run.finished for run in judged):
        statuses = Counter(run.status for run in judged)
        shown = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
        errors = [str(run.summary["error"]) for run in runs if run.summary.get("error")]
        first = f"; the first error: {errors[0].splitlines()[0]}" if errors else ""
        among = shown or "none belongs to the study in study.json"
        raise ReportError(f"no run has finished ({among}){first}")
    monitors = Counter(
        (run.summary["monitor"], run.summary["monitor_mode"])
        for run in runs
        if run.finished and run.summary["monitor"]
    )
    if metric is None:
        if not monitors:
            raise ReportError("no run recorded which metric it monitored: choose one with --metric")
        if len({name for name, _ in monitors}) > 1:
            shown = ", ".join(f"{name} ({count} runs)" for (name, _), count in monitors.items())
            raise ReportError(
                f"the runs monitor different metrics, {shown}: choose one with --metric"
            )
        metric = next(iter(monitors))[0]
    if mode is None:
        modes = {known_mode for name, known_mode in monitors if name == metric}
        if len(modes) != 1:
            raise ReportError(f"is a higher or lower {metric} better? Add --mode max or --mode min")
        mode = modes.pop()
    twin = metric.replace("val/", "test/", 1) if metric.startswith("val/") else None
    return Question(metric, twin, mode == "max")


def reported(runs: Sequence[Run]) -> list[Run]:
    """The runs behind the rows; a study's trials are left out once a repeat has ended."""
    has_repeats = any(run.phase == REPEAT and run.status != UNFINISHED for run in runs)
    return [run for run in runs if run.phase != TUNE or not has_repeats]
