"""From runs to rows: what each candidate reached, at what cost, and how far it is from the best."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from analysis.question import Question, is_share, none_finished
from analysis.runs import (
    BROKEN,
    DIVERGED,
    REPEAT,
    TUNE,
    UNFINISHED,
    ReportError,
    Run,
    Setting,
    finite,
    nested,
)
from analysis.statistics import Difference, Estimate, difference, estimate, holm, untested

ANY = (-math.inf, math.inf)
SHARE = (0.0, 1.0)
COST = (0.0, math.inf)


@dataclass
class Row:
    """One candidate: its runs at the best setting.

    Attributes:
        runs: one finished run per seed.
        num_diverged: seeds at this setting that diverged; the values are of the others.
        num_replaced: runs at this setting that were run again with the same seed.
        without_value: finished runs that lack a value that is compared.
        statuses: how its runs ended, by phase, whatever the setting.
        is_chosen: the setting was chosen by the very runs that are reported.
        cost: what it took, by name; a cost that no run recorded is left out.
        num_reached: runs that reached the target.
        versus_best: None if it is the best, or has no value.
    """

    name: str
    setting: Setting
    runs: list[Run]
    num_diverged: int
    num_replaced: int
    without_value: list[Run]
    statuses: dict[str, Counter[str]]
    num_settings: int
    is_chosen: bool
    validation: Estimate | None
    test: Estimate | None
    cost: dict[str, Estimate] = field(default_factory=dict)
    num_reached: int = 0
    versus_best: Difference | None = None

    @property
    def num_seeds(self) -> int:
        return len(self.runs) + self.num_diverged

    @property
    def value(self) -> Estimate | None:
        """What candidates are compared on."""
        return self.test or self.validation


@dataclass(frozen=True)
class Comparison:
    """Rows, the best first.

    Attributes:
        target: the value whose cost in steps and seconds is counted.
    """

    question: Question
    rows: list[Row]
    runs: list[Run]
    target: float | None

    @property
    def best(self) -> Row:
        return self.rows[0]

    @property
    def used(self) -> list[Run]:
        """The runs whose values stand in the table."""
        return [run for row in self.rows for run in row.runs]

    def metrics(self, start: str, end: str) -> list[str]:
        """The recorded metrics so named; several where training has several phases."""
        columns = {str(name) for run in self.used for name in run.events}
        return sorted(name for name in columns if name.startswith(start) and name.endswith(end))


def compare(runs: list[Run], question: Question, target: float | None = None) -> Comparison:
    """Make a row for every candidate, the best first, and test the others against it.

    Raises:
        ReportError: no run has a value to compare.
    """
    test, question = question.test, replace(question, test=None)
    rows = rows_of(runs, question)
    used = [run for row in rows for run in row.runs]
    if not used and not any(row.without_value for row in rows):
        raise none_finished(reported(runs))
    if not used:
        columns = sorted({str(name) for run in runs for name in run.events if "/" in str(name)})
        names = ", ".join(columns) or "none"
        raise ReportError(f"no finished run has {question.validation}; there are {names}")
    if test and not without_metric(rows, test):
        question = replace(question, test=test)
        rows = rows_of(runs, question)
    if target is None:
        target = asked_target(used) or common_target(rows, question)
    for row in rows:
        add_cost(row, question, target)
    rows.sort(key=lambda row: standing(row, question), reverse=True)
    test_against_best(rows, question)
    return Comparison(question, rows, runs, target)


def standing(row: Row, question: Question) -> tuple[bool, float, float]:
    """The order of rows: a seed that diverged is the worst there is, so fewest of them first."""
    diverged = row.num_diverged / max(row.num_seeds, 1)
    return bool(row.runs), -diverged, question.key(row.value and row.value.mean)


def without_metric(rows: Iterable[Row], metric: str) -> list[str]:
    """The candidates of which no run has the metric."""
    return [
        row.name for row in rows if row.runs and all(run.final(metric) is None for run in row.runs)
    ]


def rows_of(runs: Sequence[Run], question: Question) -> list[Row]:
    by_candidate: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_candidate[run.candidate].append(run)
    phases = {run.phase for run in reported(runs)}
    return [row_of(name, group, question, phases) for name, group in by_candidate.items()]


def reported(runs: Sequence[Run]) -> list[Run]:
    """The runs that rows stand on: of a study the repeats alone, as soon as one has ended."""
    has_repeats = any(run.phase == REPEAT and run.status != UNFINISHED for run in runs)
    return [run for run in runs if run.phase != TUNE or not has_repeats]


def row_of(name: str, runs: Sequence[Run], question: Question, phases: set[str]) -> Row:
    """A candidate's row, from its runs of some phases."""
    statuses: dict[str, Counter[str]] = defaultdict(Counter)
    settings: dict[Setting, list[Run]] = defaultdict(list)
    for run in runs:
        statuses[run.phase][run.status] += 1
        if run.phase in phases:
            settings[run.setting].append(run)
    setting = max(settings, key=lambda setting: merit(settings[setting], question), default=())
    ended = [run for run in settings[setting] if run.finished or run.status == DIVERGED]
    counted = [run for run in ended if not run.finished or question.is_answered_by(run)]
    last = list({run.seed: run for run in counted}.values())
    finished = [run for run in last if run.finished]
    return Row(
        name=name,
        setting=setting,
        runs=finished,
        num_diverged=len(last) - len(finished),
        num_replaced=len(counted) - len(last),
        without_value=[run for run in ended if run not in counted],
        statuses=statuses,
        num_settings=len({run.setting for run in runs if run.phase != REPEAT}),
        is_chosen=len(settings) > 1,
        validation=over(finished, question.validation_of, possible(question.validation)),
        test=over(finished, question.test_of, possible(question.decides)),
    )


def merit(runs: Sequence[Run], question: Question) -> tuple[int, bool, float]:
    """How good a setting is: fewest broken runs, run to the end, then the mean on validation."""
    finished = [run for run in runs if run.finished]
    found = [v for run in finished if (v := question.validation_of(run)) is not None]
    broken = sum(run.status in BROKEN for run in runs)
    is_full = bool(finished) and not any(run.is_partial for run in finished)
    return -broken, is_full, question.key(sum(found) / len(found) if found else None)


def over(
    runs: Sequence[Run], value_of: Callable[[Run], float | None], between: tuple[float, float]
) -> Estimate | None:
    values = [value for run in runs if (value := value_of(run)) is not None]
    return estimate(values, *between) if values else None


def possible(metric: str) -> tuple[float, float]:
    """The least and the greatest value that a metric can have."""
    return SHARE if is_share(metric) else ANY


def test_against_best(rows: Sequence[Row], question: Question) -> None:
    """Every other row's difference to the first, with p-values corrected for all pairs of rows.

    The first is the best by the very values that are tested, so each of the others could have
    stood in its place: counting only the comparisons that are shown would find differences between
    equals in a tenth of all reports of seven candidates. Rows with seeds that diverged are not
    tested: their values are of the survivors alone.
    """
    with_value = [row for row in rows if row.runs]
    found: dict[tuple[str, str], Difference] = {}
    for other, row in combinations(with_value, 2):
        is_complete = not row.num_diverged and not other.num_diverged
        compare_seeds = difference if is_complete else untested
        found[row.name, other.name] = compare_seeds(
            values_by_seed(row, question), values_by_seed(other, question)
        )
    tested = {pair: diff.p for pair, diff in found.items() if diff.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    for row in with_value[1:]:
        pair = row.name, rows[0].name
        row.versus_best = replace(found[pair], adjusted_p=adjusted.get(pair))


def values_by_seed(row: Row, question: Question) -> dict[object, float]:
    values = {run.seed: question.value_of(run) for run in row.runs}
    return {seed: value for seed, value in values.items() if value is not None}


def asked_target(runs: Sequence[Run]) -> float | None:
    """The ``trainer.target`` that all runs had, if they had one."""
    targets = {finite(nested(run.config, "trainer", "target")) for run in runs}
    return targets.pop() if len(targets) == 1 else None


def common_target(rows: Sequence[Row], question: Question) -> float | None:
    """The value that half of the candidates reached with every seed; half of those that can."""
    sound = [row for row in rows if not row.num_diverged]
    worst = [
        min(values, key=question.key)
        for row in sound or rows
        if (values := [v for run in row.runs if (v := question.validation_of(run)) is not None])
    ]
    return sorted(worst, key=question.key)[len(worst) // 2] if worst else None


def reached(run: Run, question: Question, target: float) -> tuple[float, float] | None:
    """Step and training seconds of the first evaluation at least as good as ``target``."""
    curve = run.curve(question.validation)
    good = curve["value"] >= target if question.larger_is_better else curve["value"] <= target
    if not good.any():
        return None
    first = curve[good].iloc[0]
    return float(first["step"]), float(first["seconds"])


def bytes_per_parameter(run: Run) -> float | None:
    state, parameters = run.number("optimizer_state_bytes"), run.number("num_parameters")
    return state / parameters if state is not None and parameters else None


def add_cost(row: Row, question: Question, target: float | None) -> None:
    """Fill in what the candidate cost."""
    hits = {run: target is not None and reached(run, question, target) for run in row.runs}
    row.num_reached = sum(bool(hit) for hit in hits.values())
    costs: dict[str, Callable[[Run], float | None]] = {
        "train_seconds": lambda run: run.number("train_seconds"),
        "step_ms": lambda run: run.number("step_ms"),
        "optimizer_step_ms": lambda run: run.number("optimizer_step_ms"),
        "state_bytes_per_parameter": bytes_per_parameter,
        "peak_memory_bytes": lambda run: run.number("peak_memory_bytes"),
        "target_steps": lambda run: hit[0] if (hit := hits[run]) else None,
        "target_seconds": lambda run: hit[1] if (hit := hits[run]) else None,
    }
    for name, cost_of in costs.items():
        if (cost := over(row.runs, cost_of, COST)) is not None:
            row.cost[name] = cost
