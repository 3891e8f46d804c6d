"""From runs to rows: what each candidate reached, at what cost, and how far it is from the best."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
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

COST = (0.0, math.inf)  # what is possible


def bytes_per_parameter(run: Run) -> float | None:
    state, parameters = run.number("optimizer_state_bytes"), run.number("num_parameters")
    return state / parameters if state is not None and parameters else None


COSTS: dict[str, Callable[[Run], float | None]] = {
    "train_seconds": lambda run: run.number("train_seconds"),
    "step_ms": lambda run: run.number("step_ms"),
    "optimizer_step_ms": lambda run: run.number("optimizer_step_ms"),
    "state_bytes_per_parameter": bytes_per_parameter,
    "peak_memory_bytes": lambda run: run.number("peak_memory_bytes"),
}


@dataclass
class Row:
    """One candidate: its runs at the best setting."""

    name: str
    setting: Setting
    runs: list[Run]  # one finished run per seed
    num_diverged: int  # seeds at this setting that diverged; the values are of the others
    num_replaced: int  # runs at this setting that were run again with the same seed
    without_value: list[Run]  # finished, but a value that is compared is missing
    statuses: dict[str, Counter[str]]  # by phase, of all its runs, whatever the setting
    num_settings: int
    is_chosen: bool  # the setting was chosen by the very runs that are reported
    validation: Estimate | None
    test: Estimate | None
    cost: dict[str, Estimate]  # by name; a cost that no run recorded is left out
    num_reached: int = 0  # runs that reached the target
    versus_best: Difference | None = None  # None: it is the best, or has no value

    @property
    def num_seeds(self) -> int:
        return len(self.runs) + self.num_diverged

    @property
    def value(self) -> Estimate | None:
        """What candidates are compared on."""
        return self.test or self.validation


@dataclass(frozen=True)
class Comparison:
    question: Question
    rows: list[Row]  # the best first
    runs: list[Run]
    target: float | None  # the value whose cost in steps and seconds is counted

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
    for run in runs:
        question.answer(run)
    rows = rows_of(runs, question)
    used = [run for row in rows for run in row.runs]
    if not used and not any(row.without_value for row in rows):
        raise none_finished(reported(runs))
    if not used:
        columns = sorted({str(name) for run in runs for name in run.events if "/" in str(name)})
        names = ", ".join(columns) or "none"
        raise ReportError(f"no finished run has {question.validation}; there are {names}")
    if question.test and not without_test(rows):
        question = replace(question, is_tested=True)
        rows = rows_of(runs, question)
    if target is None:
        target = asked_target(used) or common_target(rows, question)
    if target is not None:
        for row in rows:
            add_target(row, question, target)
    rows.sort(key=lambda row: standing(row, question), reverse=True)
    compare_with_best(rows, question)
    return Comparison(question, rows, runs, target)


def standing(row: Row, question: Question) -> tuple[bool, float, float]:
    """The order of rows: a seed that diverged is the worst there is, so fewest of them first."""
    diverged = row.num_diverged / max(row.num_seeds, 1)
    return bool(row.runs), -diverged, question.key(row.value.mean if row.value else None)


def without_test(rows: Iterable[Row]) -> list[str]:
    """The candidates of which no run was tested."""
    return [row.name for row in rows if row.runs and all(run.test is None for run in row.runs)]


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
    counted = [
        run
        for run in ended
        if not run.finished or None not in (run.validation, question.value_of(run))
    ]
    last = list({run.seed: run for run in counted}.values())
    finished = [run for run in last if run.finished]
    costs = {name: over([cost(run) for run in finished], *COST) for name, cost in COSTS.items()}
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
        validation=over([run.validation for run in finished], *possible(question.validation)),
        test=over([run.test for run in finished], *possible(question.decides))
        if question.is_tested
        else None,
        cost={name: cost for name, cost in costs.items() if cost is not None},
    )


def merit(runs: Sequence[Run], question: Question) -> tuple[int, bool, float]:
    """How good a setting is: fewest broken runs, run to the end, then the mean on validation."""
    finished = [run for run in runs if run.finished]
    found = over([run.validation for run in finished])
    broken = sum(run.status in BROKEN for run in runs)
    is_full = bool(finished) and not any(run.is_partial for run in finished)
    return -broken, is_full, question.key(found.mean if found else None)


def over(
    values: Sequence[float | None], least: float = -math.inf, greatest: float = math.inf
) -> Estimate | None:
    known = [value for value in values if value is not None]
    return estimate(known, least, greatest) if known else None


def possible(metric: str) -> tuple[float, float]:
    """The least and the greatest value that a metric can have."""
    return (0.0, 1.0) if is_share(metric) else (-math.inf, math.inf)


def compare_with_best(rows: Sequence[Row], question: Question) -> None:
    """Every other row's difference to the first, with p-values corrected for all pairs of rows.

    The first is the best by the very values that are tested, so each of the others could have
    stood in its place: counting only the comparisons that are shown would find differences between
    equals in a tenth of all reports of seven candidates. Rows with seeds that diverged are not
    tested: their values are of the survivors alone.
    """
    by_seed = {
        row.name: {run.seed: question.value_of(run) or 0.0 for run in row.runs}
        for row in rows
        if row.runs
    }
    diverged = {row.name for row in rows if row.num_diverged}
    found: dict[tuple[str, str], Difference] = {}
    for other, name in combinations(by_seed, 2):
        compare_seeds = untested if {name, other} & diverged else difference
        found[name, other] = compare_seeds(by_seed[name], by_seed[other])
    tested = {pair: diff.p for pair, diff in found.items() if diff.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    for row in rows[1:]:
        if diff := found.get(pair := (row.name, rows[0].name)):
            row.versus_best = replace(diff, adjusted_p=adjusted.get(pair))


def asked_target(runs: Sequence[Run]) -> float | None:
    """The ``trainer.target`` that all runs had, if they had one."""
    targets = {finite(nested(run.config, "trainer", "target")) for run in runs}
    return targets.pop() if len(targets) == 1 else None


def common_target(rows: Sequence[Row], question: Question) -> float:
    """The value that half of the candidates reached with every seed; half of those that can."""
    sound = [row for row in rows if row.runs and not row.num_diverged]
    worst = sorted(
        min(question.key(run.validation) for run in row.runs) for row in sound or rows if row.runs
    )
    return question.key(worst[len(worst) // 2])  # its own inverse


def add_target(row: Row, question: Question, target: float) -> None:
    """Count the runs that reached a value on validation, and the cost of the first time."""
    hits = []
    for run in row.runs:
        curve = run.curve(question.validation)
        good = curve[curve["value"].map(question.key) >= question.key(target)]
        if not good.empty:
            hits.append(good.iloc[0])
    row.num_reached = len(hits)
    for name, column in (("target_steps", "step"), ("target_seconds", "seconds")):
        if cost := over([float(hit[column]) for hit in hits], *COST):
            row.cost[name] = cost
