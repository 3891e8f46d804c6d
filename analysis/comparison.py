"""From runs to rows: what each candidate reached, at what cost, and how far it is from the best."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from analysis.candidates import REPEAT, TUNE, Member, Setting
from analysis.errors import ReportError
from analysis.question import Question, final, is_share, none_finished
from analysis.runs import UNFINISHED, Run, finite, nested
from analysis.statistics import Difference, Estimate, difference, estimate, holm, untested

DIVERGED = "diverged"
BROKEN = (DIVERGED, "failed")  # a trial that ended so counts as the worst value
ANY = (-math.inf, math.inf)
SHARE = (0.0, 1.0)
COST = (0.0, math.inf)


@dataclass(frozen=True)
class Row:
    """One candidate: its runs at the best setting."""

    name: str
    setting: Setting
    runs: tuple[Run, ...]  # one finished run per seed
    num_diverged: int  # seeds at this setting that diverged: whatever ``runs`` say is of survivors
    num_replaced: int  # runs at this setting that were run again with the same seed
    without_value: tuple[Run, ...]  # finished, but a value that is compared is missing or no number
    statuses: dict[str, Counter[str]]  # by phase, of all its runs, whatever the setting
    num_settings: int
    is_chosen: bool  # the setting was chosen by the very runs that are reported
    validation: Estimate | None
    test: Estimate | None
    cost: dict[str, Estimate] = field(default_factory=dict)
    num_reached: int = 0  # runs that reached the target
    versus_best: Difference | None = None  # None: it is the best, or has no value

    @property
    def num_seeds(self) -> int:
        return len(self.runs) + self.num_diverged

    def num(self, *statuses: str) -> int:
        """How many of all its runs ended so; without arguments, how many there are."""
        counts = sum(self.statuses.values(), Counter())
        return sum(counts[status] for status in statuses or counts)


@dataclass(frozen=True)
class Comparison:
    question: Question
    rows: list[Row]  # the best first
    members: list[Member]
    target: float | None  # the value whose cost in steps and seconds is counted

    @property
    def best(self) -> Row:
        return self.rows[0]

    def value(self, row: Row) -> Estimate | None:
        return row.test if self.question.test else row.validation

    def metrics(self, start: str, end: str) -> list[str]:
        """The recorded metrics so named; several where training has several phases."""
        columns = {str(name) for row in self.rows for run in row.runs for name in run.events}
        return sorted(name for name in columns if name.startswith(start) and name.endswith(end))


def compare(members: list[Member], question: Question, target: float | None = None) -> Comparison:
    """Make a row for every candidate, the best first, and test the others against it.

    Raises:
        ReportError: no run has a value to compare.
    """
    on_validation = replace(question, test=None)
    rows = rows_of(members, on_validation)
    used = [run for row in rows for run in row.runs]
    if not used and not any(row.without_value for row in rows):
        raise ReportError(none_finished([member.run for member in reported(members)]))
    if not used:
        columns = {str(column) for member in members for column in member.run.events}
        names = ", ".join(sorted(column for column in columns if "/" in column))
        raise ReportError(f"no finished run has {question.validation}; there are {names or 'none'}")
    if question.test and not without_test(rows, question.test):
        rows = rows_of(members, question)
    else:
        question = on_validation
    if target is None:
        target = asked_target(used) or common_target(rows, question)
    rows = [with_cost(row, question, target) for row in rows]
    comparison = Comparison(question, rows, members, target)
    means = {row.name: estimated.mean for row in rows if (estimated := comparison.value(row))}
    rows.sort(key=lambda row: standing(row, question.key(means.get(row.name))), reverse=True)
    return replace(comparison, rows=against_best(rows, question))


def standing(row: Row, merit: float) -> tuple[bool, float, float]:
    """The order of rows: a seed that diverged is the worst there is, so fewest of them first."""
    return bool(row.runs), -row.num_diverged / max(row.num_seeds, 1), merit


def without_test(rows: Sequence[Row], metric: str) -> list[str]:
    """The candidates of which no run has the test metric."""
    return [
        row.name for row in rows if row.runs and all(final(run, metric) is None for run in row.runs)
    ]


def rows_of(members: Sequence[Member], question: Question) -> list[Row]:
    by_candidate: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        by_candidate[member.candidate].append(member)
    phases = {member.phase for member in reported(members)}
    return [row_of(name, group, question, phases) for name, group in by_candidate.items()]


def reported(members: Sequence[Member]) -> list[Member]:
    """The members that rows stand on: of a study the repeats alone, as soon as one has ended."""
    has_repeats = any(m.phase == REPEAT and m.run.status != UNFINISHED for m in members)
    return [member for member in members if member.phase != TUNE or not has_repeats]


def row_of(name: str, members: Sequence[Member], question: Question, phases: set[str]) -> Row:
    """A candidate's row, from its runs of some phases."""
    settings: dict[Setting, list[Member]] = defaultdict(list)
    statuses: dict[str, Counter[str]] = defaultdict(Counter)
    for member in members:
        statuses[member.phase][member.run.status] += 1
        if member.phase in phases:
            settings[member.setting].append(member)
    setting = max(settings, key=lambda setting: merit(settings[setting], question), default=())
    ended = [m.run for m in settings[setting] if m.run.finished or m.run.status == DIVERGED]
    finished = [run for run in ended if run.finished]
    last = {run.seed: run for run in ended if not run.finished or question.is_answered_by(run)}
    runs = tuple(run for run in last.values() if run.finished)
    without_value = tuple(run for run in finished if not question.is_answered_by(run))
    return Row(
        name=name,
        setting=setting,
        runs=runs,
        num_diverged=len(last) - len(runs),
        num_replaced=len(ended) - len(without_value) - len(last),
        without_value=without_value,
        statuses=statuses,
        num_settings=len({member.setting for member in members if member.phase != REPEAT}),
        is_chosen=len(settings) > 1,
        validation=over(runs, question.validation_of, possible(question.validation)),
        test=over(runs, question.test_of, possible(question.decides)),
    )


def merit(members: Sequence[Member], question: Question) -> tuple[int, bool, float]:
    """How good a setting is: fewest broken runs, run to the end, then the mean on validation."""
    finished = [member for member in members if member.run.finished]
    values = [question.validation_of(member.run) for member in finished]
    found = [value for value in values if value is not None]
    broken = sum(member.run.status in BROKEN for member in members)
    is_full = bool(finished) and not any(member.is_partial for member in finished)
    return -broken, is_full, question.key(sum(found) / len(found) if found else None)


def over(
    runs: Sequence[Run],
    value_of: Callable[[Run], float | None],
    between: tuple[float, float],
) -> Estimate | None:
    values = [value for run in runs if (value := value_of(run)) is not None]
    return estimate(values, *between) if values else None


def possible(metric: str) -> tuple[float, float]:
    """The least and the greatest value that a metric can have."""
    return SHARE if is_share(metric) else ANY


def against_best(rows: list[Row], question: Question) -> list[Row]:
    """Every other row's difference to the first, with p-values corrected for all pairs of rows.

    The first is the best by the very values that are tested, so each of the others could have
    stood in its place: counting only the comparisons that are shown would find differences between
    equals in a tenth of all reports of seven candidates. What is known of survivors alone is not
    tested: the seeds that diverged had no part in it.
    """
    known = {row.name: values for row in rows if (values := values_by_seed(row, question))}
    survivors = {row.name for row in rows if row.num_diverged}
    found = {
        (name, other): untested(known[name], known[other])
        if {name, other} & survivors
        else difference(known[name], known[other])
        for other, name in combinations(known, 2)
    }
    tested = {pair: diff.p for pair, diff in found.items() if diff.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    best = rows[0].name
    return [
        replace(
            row,
            versus_best=(diff := found.get((row.name, best)))
            and replace(diff, adjusted_p=adjusted.get((row.name, best))),
        )
        for row in rows
    ]


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


def with_cost(row: Row, question: Question, target: float | None) -> Row:
    """Fill in what the candidate cost; a cost that no run recorded is left out."""

    def bytes_per_parameter(run: Run) -> float | None:
        state, parameters = run.number("optimizer_state_bytes"), run.number("num_parameters")
        return state / parameters if state is not None and parameters else None

    costs: dict[str, Callable[[Run], float | None]] = {
        "train_seconds": lambda run: run.number("train_seconds"),
        "step_ms": lambda run: run.number("step_ms"),
        "optimizer_step_ms": lambda run: run.number("optimizer_step_ms"),
        "state_bytes_per_parameter": bytes_per_parameter,
        "peak_memory_bytes": lambda run: run.number("peak_memory_bytes"),
    }
    found = {name: over(row.runs, cost, COST) for name, cost in costs.items()}
    hits = [] if target is None else [reached(run, question, target) for run in row.runs]
    hits_found = [hit for hit in hits if hit is not None]
    if hits_found:
        found["target_steps"] = estimate([steps for steps, _ in hits_found], *COST)
        found["target_seconds"] = estimate([seconds for _, seconds in hits_found], *COST)
    cost = {name: estimated for name, estimated in found.items() if estimated is not None}
    return replace(row, cost=cost, num_reached=len(hits_found))
