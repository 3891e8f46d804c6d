"""From runs to rows: what each candidate reached, at what cost, and how far it is from the best."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from analysis.candidates import REPEAT, Member, Setting
from analysis.errors import ReportError
from analysis.runs import Run, finite, nested
from analysis.statistics import Difference, Estimate, difference, estimate, holm

BROKEN = ("diverged", "failed")  # a trial that ended so counts as the worst value


@dataclass(frozen=True)
class Question:
    """What the runs are compared on."""

    validation: str  # the monitored metric: chooses settings
    test: str | None  # its twin on the test split, if every candidate has it
    larger_is_better: bool
    reads_summary: bool  # whether the summary's ``best`` is of this metric

    @property
    def decides(self) -> str:
        """The metric that candidates are compared on."""
        return self.test or self.validation

    def validation_of(self, run: Run) -> float | None:
        """The best value on validation that a run reached."""
        if self.reads_summary and (value := run.number("best", "value")) is not None:
            return value
        values = run.curve(self.validation)["value"]
        if values.empty:
            return None
        return float(values.max() if self.larger_is_better else values.min())

    def test_of(self, run: Run) -> float | None:
        if self.test is None:
            return None
        if (value := run.number(self.test)) is not None:
            return value
        values = run.curve(self.test)["value"]
        return None if values.empty else float(values.iloc[-1])

    def value_of(self, run: Run) -> float | None:
        return self.test_of(run) if self.test else self.validation_of(run)

    def key(self, value: float | None) -> float:
        """Larger is better; nothing at all is the worst."""
        if value is None:
            return -math.inf
        return value if self.larger_is_better else -value


@dataclass(frozen=True)
class Row:
    """One candidate: its runs at the best setting."""

    name: str
    setting: Setting
    runs: tuple[Run, ...]  # one finished run per seed
    statuses: Counter[str]  # of all its runs, whatever the setting
    num_settings: int
    is_repeat: bool  # measured on runs that chose nothing
    validation: Estimate | None
    test: Estimate | None
    cost: dict[str, Estimate] = field(default_factory=dict)
    num_reached: int = 0  # runs that reached the target
    versus_best: Difference | None = None  # None: it is the best, or has no value


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


def ask(runs: Sequence[Run], metric: str | None = None, mode: str | None = None) -> Question:
    """Settle what the runs are compared on.

    Raises:
        ReportError: the runs monitor different metrics, or nothing tells which way is better.
    """
    monitors = Counter(
        (str(run.summary["monitor"]), str(run.summary.get("monitor_mode", "max")))
        for run in runs
        if "monitor" in run.summary
    )
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
    twin = metric.replace("val/", "test/", 1) if metric.startswith("val/") else None
    is_monitor = all(run.summary.get("monitor", metric) == metric for run in runs)
    return Question(metric, twin, mode == "max", is_monitor)


def compare(members: list[Member], question: Question, target: float | None = None) -> Comparison:
    """Make a row for every candidate, the best first, and test the others against it.

    Raises:
        ReportError: no run has a value to compare.
    """
    rows = rows_of(members, question)
    used = [run for row in rows for run in row.runs]
    if not used:
        raise ReportError(nothing_to_compare([member.run for member in members], question))
    if question.test and any(question.test_of(run) is None for run in used):
        question = replace(question, test=None)
        rows = rows_of(members, question)
    if target is None:
        target = asked_target(used) or common_target(rows, question)
    rows = [with_cost(row, question, target) for row in rows]
    comparison = Comparison(question, rows, members, target)
    means = {row.name: estimated.mean for row in rows if (estimated := comparison.value(row))}
    rows.sort(key=lambda row: -question.key(means.get(row.name)))
    return replace(comparison, rows=against_best(rows, question))


def rows_of(members: Sequence[Member], question: Question) -> list[Row]:
    by_candidate: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        by_candidate[member.candidate].append(member)
    has_repeats = any(member.phase == REPEAT for member in members)
    return [row_of(name, group, question, has_repeats) for name, group in by_candidate.items()]


def row_of(name: str, members: Sequence[Member], question: Question, has_repeats: bool) -> Row:
    """A candidate's row, from its repeats alone if the study has any."""
    settings: dict[Setting, list[Run]] = defaultdict(list)
    for member in members:
        if member.phase == REPEAT or not has_repeats:
            settings[member.setting].append(member.run)
    setting = max(settings, key=lambda setting: merit(settings[setting], question), default=())
    by_seed = {
        run.seed: run
        for run in settings[setting]
        if run.finished and question.validation_of(run) is not None
    }
    runs = tuple(by_seed.values())
    return Row(
        name=name,
        setting=setting,
        runs=runs,
        statuses=Counter(member.run.status for member in members),
        num_settings=len({member.setting for member in members if member.phase != REPEAT}),
        is_repeat=has_repeats,
        validation=over(runs, question.validation_of),
        test=over(runs, question.test_of),
    )


def merit(runs: Sequence[Run], question: Question) -> tuple[int, float]:
    """How good a setting is: fewest broken runs first, then the mean on validation."""
    values = [question.validation_of(run) for run in runs if run.finished]
    found = [value for value in values if value is not None]
    broken = sum(run.status in BROKEN for run in runs)
    return -broken, question.key(sum(found) / len(found) if found else None)


def over(runs: Sequence[Run], value_of: Callable[[Run], float | None]) -> Estimate | None:
    values = [value for run in runs if (value := value_of(run)) is not None]
    return estimate(values) if values else None


def nothing_to_compare(runs: Sequence[Run], question: Question) -> str:
    """Why there is no table, in one line."""
    statuses = Counter(run.status for run in runs)
    shown = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    if not any(run.finished for run in runs):
        errors = [str(run.summary["error"]) for run in runs if run.summary.get("error")]
        first = f"; the first error: {errors[0].splitlines()[0]}" if errors else ""
        return f"no run has finished ({shown}){first}"
    names = sorted({column for run in runs for column in run.events if "/" in str(column)})
    return f"no finished run has {question.validation}; there are {', '.join(names) or 'none'}"


def against_best(rows: list[Row], question: Question) -> list[Row]:
    """Every other row's difference to the first, with p-values corrected for all pairs of rows.

    The first is the best by the very values that are tested, so each of the others could have
    stood in its place: counting only the comparisons that are shown would find differences between
    equals in a tenth of all reports of seven candidates.
    """
    known = {row.name: values for row in rows if (values := values_by_seed(row, question))}
    found = {
        (name, other): difference(known[name], known[other])
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
    """The value that half of the candidates reached with every seed."""
    worst = [
        min(values, key=question.key)
        for row in rows
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
    found = {name: over(row.runs, cost) for name, cost in costs.items()}
    hits = [] if target is None else [reached(run, question, target) for run in row.runs]
    hits_found = [hit for hit in hits if hit is not None]
    if hits_found:
        found["target_steps"] = estimate([steps for steps, _ in hits_found])
        found["target_seconds"] = estimate([seconds for _, seconds in hits_found])
    cost = {name: estimated for name, estimated in found.items() if estimated is not None}
    return replace(row, cost=cost, num_reached=len(hits_found))
