"""From runs to rows: what each candidate reached, at what cost, and how far it is from the best."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from analysis.question import Question, ask, reported
from analysis.runs import BROKEN, DIVERGED, REPEAT, ReportError, Run, Setting, nested
from analysis.statistics import ALPHA, Difference, Estimate, difference, estimate, holm, untested
from analysis.words import is_share

COSTS = (
    "train_seconds", "step_ms", "optimizer_step_ms", "state_bytes_per_parameter",
    "peak_memory_bytes",
)  # fmt: skip
# what the tests allow to say of a candidate
BEST = "best"  # every other is detectably worse
WORSE = "worse"
NO_DIFFERENCE = "no detectable difference"
UNTESTED = "cannot be tested"
SURVIVORS = "seeds diverged"
NO_VALUE = "no value"


@dataclass
class Row:
    """One candidate: its runs at the best setting."""

    name: str
    setting: Setting
    runs: list[Run]  # one finished run per seed
    num_diverged: int  # seeds at this setting that diverged; the values are of the others
    num_replaced: int  # runs at this setting that were run again with the same seed
    without_value: list[Run]  # finished, but a value that is compared is missing
    statuses: Counter[str]  # of all its runs, whatever the setting
    num_settings: int
    is_chosen: bool  # the setting was chosen by the very runs that are reported
    validation: Estimate | None
    value: Estimate | None  # what candidates are compared on
    cost: dict[str, Estimate] = field(default_factory=dict)  # those that its runs recorded
    num_reached: int = 0  # runs that reached the target
    versus_best: Difference | None = None  # None: it is the best, or has no value
    verdict: str = NO_VALUE

    @property
    def num_seeds(self) -> int:
        return len(self.runs) + self.num_diverged


@dataclass(frozen=True)
class Comparison:
    question: Question
    rows: list[Row]  # the best first
    runs: list[Run]
    target: float  # the value whose cost in steps and seconds is counted

    @property
    def best(self) -> Row:
        return self.rows[0]

    @property
    def used(self) -> list[Run]:
        """The runs whose values stand in the table."""
        return [run for row in self.rows for run in row.runs]

    @property
    def tests(self) -> list[str]:
        """The tests that were applied."""
        return sorted({row.versus_best.test for row in self.rows if row.versus_best} - {""})

    def metrics(self, start: str, end: str) -> list[str]:
        """The recorded metrics so named; several where training has several phases."""
        columns = {str(name) for run in self.used for name in run.events}
        return sorted(name for name in columns if name.startswith(start) and name.endswith(end))


def compare(
    runs: list[Run],
    metric: str | None = None,
    mode: str | None = None,
    target: float | None = None,
) -> Comparison:
    """Make a row for every candidate, the best first, and test the others against it.

    Args:
        metric: to compare on; None: what the runs monitor.
        mode: ``max`` or ``min``; None: as the runs monitor ``metric``.
        target: the value whose cost is counted; None: the runs' own, or one that half of the
            candidates reach.

    Raises:
        ReportError: no run has a value to compare, the runs monitor different metrics, or nothing
            tells which way is better.
    """
    question = ask(runs, metric, mode)
    for run in runs:
        question.answer(run)
    rows = rows_of(runs, question)
    used = [run for row in rows for run in row.runs]
    if not used:
        columns = sorted({str(name) for run in runs for name in run.events if "/" in str(name)})
        names = ", ".join(columns) or "none"
        raise ReportError(f"no finished run has {question.validation}; there are {names}")
    if question.test and not without_test(rows):
        question = replace(question, is_tested=True)
        rows = rows_of(runs, question)
    if target is None:
        target = asked_target(used) or common_target(rows, question)
    for row in rows:
        add_costs(row, question, target)
    rows.sort(key=lambda row: standing(row, question), reverse=True)
    compare_with_best(rows, question)
    return Comparison(question, rows, runs, target)


def rows_of(runs: Sequence[Run], question: Question) -> list[Row]:
    by_candidate: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_candidate[run.candidate].append(run)
    phases = {run.phase for run in reported(runs)}
    return [row_of(name, group, question, phases) for name, group in by_candidate.items()]


def row_of(name: str, runs: Sequence[Run], question: Question, phases: set[str]) -> Row:
    """A candidate's row, from its runs of some phases."""
    settings: dict[Setting, list[Run]] = defaultdict(list)
    for run in runs:
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
    return Row(
        name=name,
        setting=setting,
        runs=finished,
        num_diverged=len(last) - len(finished),
        num_replaced=len(counted) - len(last),
        without_value=[run for run in ended if run not in counted],
        statuses=Counter(run.status for run in runs),
        num_settings=len({run.setting for run in runs if run.phase != REPEAT}),
        is_chosen=len(settings) > 1,
        validation=of_known([run.validation for run in finished], *possible(question.validation)),
        value=of_known([question.value_of(run) for run in finished], *possible(question.decides)),
    )


def merit(runs: Sequence[Run], question: Question) -> tuple[bool, int, bool, float]:
    """How good a setting is: fewest broken runs, run to the end, then the mean on validation."""
    finished = [run for run in runs if run.finished]
    found = of_known([run.validation for run in finished])
    broken = sum(run.status in BROKEN for run in runs)
    is_full = not any(run.is_partial for run in finished)
    return bool(finished), -broken, is_full, question.key(found.mean if found else None)


def of_known(
    values: Sequence[float | None], least: float = -math.inf, greatest: float = math.inf
) -> Estimate | None:
    """The estimate of those that are known; None if there are none."""
    known = [value for value in values if value is not None]
    return estimate(known, least, greatest) if known else None


def possible(metric: str) -> tuple[float, float]:
    """The least and the greatest value that a metric can have."""
    return (0.0, 1.0) if is_share(metric) else (-math.inf, math.inf)


def without_test(rows: Sequence[Row]) -> list[str]:
    """The candidates of which no run was tested."""
    return [row.name for row in rows if row.runs and all(run.test is None for run in row.runs)]


def asked_target(runs: Sequence[Run]) -> float | None:
    """The ``trainer.target`` that all runs had, if they had one."""
    targets = {nested(run.config, "trainer", "target") for run in runs}
    return targets.pop() if len(targets) == 1 else None


def common_target(rows: Sequence[Row], question: Question) -> float:
    """The value that half of the candidates reached with every seed; half of those that can."""
    sound = [row for row in rows if row.runs and not row.num_diverged]
    worst = sorted(
        min(question.key(run.validation) for run in row.runs) for row in sound or rows if row.runs
    )
    return question.key(worst[len(worst) // 2])


def add_costs(row: Row, question: Question, target: float) -> None:
    """What the runs cost, and what it cost to reach a value on validation the first time."""
    found: dict[str, list[float | None]] = {
        name: [cost_of(run, name) for run in row.runs] for name in COSTS
    }
    hits = []
    for run in row.runs:
        curve = run.curve(question.validation)
        good = curve[curve["value"].map(question.key) >= question.key(target)]
        hits += good.head(1).to_dict("records")
    row.num_reached = len(hits)
    found["target_steps"] = [hit["step"] for hit in hits]
    found["target_seconds"] = [hit["seconds"] for hit in hits]
    for name, values in found.items():
        if cost := of_known(values, least=0.0):
            row.cost[name] = cost


def cost_of(run: Run, name: str) -> float | None:
    if name != "state_bytes_per_parameter":
        return run.number(name)
    state, parameters = run.number("optimizer_state_bytes"), run.number("num_parameters")
    return state / parameters if state is not None and parameters else None


def standing(row: Row, question: Question) -> tuple[bool, float, float]:
    """The order of rows: a seed that diverged is the worst there is, so fewest of them first."""
    diverged = row.num_diverged / max(row.num_seeds, 1)
    return bool(row.runs), -diverged, question.key(row.value.mean if row.value else None)


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
    best, *others = rows
    for row in others:
        if diff := found.get(pair := (row.name, best.name)):
            row.versus_best = replace(diff, adjusted_p=adjusted.get(pair))
        row.verdict = verdict(row)
    if best.num_diverged:
        best.verdict = SURVIVORS
    elif not others:
        best.verdict = ""  # there is nothing that it was compared with
    elif all(row.verdict == WORSE for row in others):
        best.verdict = BEST
    else:
        best.verdict = question.first_mean


def verdict(row: Row) -> str:
    """What a test allows to say of a candidate against the best."""
    if row.num_diverged:
        return SURVIVORS
    if row.versus_best is None:
        return NO_VALUE
    if row.versus_best.adjusted_p is None:
        return UNTESTED
    return WORSE if row.versus_best.adjusted_p < ALPHA else NO_DIFFERENCE
