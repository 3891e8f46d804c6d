"""Rows compared: which candidate may be the best, and how far the others are from it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from analysis.question import Question, ask, reported
from analysis.rows import Key, Row, add_costs, is_diverged, rows_of, unit_means
from analysis.runs import TUNE, ReportError, Run, nested
from analysis.statistics import (
    ALPHA,
    Difference,
    Estimate,
    holm,
    paired,
    probability_of_improvement,
    to_the_best,
    unpaired,
)

# what the tests allow to say of a candidate
BEST = "best"  # every other is detectably worse than some candidate, and it is not
MAY_BE_BEST = "may be best"
WORSE = "worse"
UNTESTED = "cannot be tested"
NOT_COMPARED = "not compared"
LEAST_UNITS = 2


@dataclass(frozen=True)
class Comparison:
    question: Question
    rows: list[Row]  # the best first
    untuned: list[Row]  # of a study, the candidates as they are
    runs: list[Run]
    targets: list[float]  # values whose cost in steps and seconds is counted, the easiest first
    target: float  # what was asked for, if anything was; else the middle one

    @property
    def best(self) -> Row:
        return self.rows[0]

    @property
    def used(self) -> list[Run]:
        """The runs whose values stand in the table."""
        return [run for row in self.rows for run in row.runs]

    @property
    def is_replicated(self) -> bool:
        """Whether tuning was repeated, so that verdicts are about candidates, not settings."""
        return all(run.replicate is not None and run.phase != TUNE for run in self.used)

    @property
    def unit(self) -> str:
        return "replicate" if self.is_replicated else "seed"

    @property
    def tests(self) -> list[str]:
        """The tests that were applied."""
        return sorted({row.difference.test for row in self.rows if row.difference} - {""})

    def metrics(self, start: str, end: str) -> list[str]:
        """The recorded metrics so named; several where training has several phases."""
        names = {name for run in self.used for name in run.curves}
        return sorted(name for name in names if name.startswith(start) and name.endswith(end))


def compare(
    runs: list[Run],
    metric: str | None = None,
    mode: str | None = None,
    target: float | None = None,
) -> Comparison:
    """Make a row for every candidate, the best first, and test them against each other.

    Args:
        metric: to compare on; None: what the runs monitor.
        mode: ``max`` or ``min``; None: as the runs monitor ``metric``.
        target: a value whose cost is counted; None: the runs' own, if they have one.

    Raises:
        ReportError: no run has a value to compare, the runs monitor different metrics, or nothing
            tells which way is better.
    """
    question = ask(runs, metric, mode)
    for run in runs:
        question.answer(run)
    shown = reported(runs)
    phases = {run.phase for run in shown}
    rows = rows_of(runs, question, phases)
    used = [run for row in rows for run in row.runs if not row.is_untuned]
    if not used:
        columns = sorted({name for run in runs for name in run.metrics if "/" in name})
        names = ", ".join(columns) or "none"
        raise ReportError(f"no finished run has {question.validation}; they recorded {names}")
    if question.test and not without_test(rows):
        question = replace(question, is_tested=True)
    count_divergence(shown, question)
    rows = rows_of(runs, question, phases)
    rows.sort(key=lambda row: standing(row, question), reverse=True)
    tuned = [row for row in rows if not row.is_untuned]
    untuned = [row for row in rows if row.is_untuned]
    asked = asked_target(used) if target is None else target
    found = targets(tuned, question, asked)
    for row in rows:
        add_costs(row, question, found)
    judge(tuned, question)
    for row in untuned:
        row.verdict = NOT_COMPARED
    middle = found[len(found) // 2] if asked is None else asked
    return Comparison(question, tuned, untuned, runs, found, middle)


def without_test(rows: Sequence[Row]) -> list[str]:
    """The candidates of which no run was tested."""
    return [row.name for row in rows if row.runs and all(run.test is None for run in row.runs)]


def standing(row: Row, question: Question) -> tuple[bool, float]:
    return bool(row.runs), question.key(row.value.mean if row.value else None)


def count_divergence(runs: Sequence[Run], question: Question) -> None:
    """Give runs that diverged the worst value that any run has, so they lose in every pair."""
    finished = [run for run in runs if run.finished]
    validation = [run.validation for run in finished if run.validation is not None]
    test = [run.test for run in finished if run.test is not None]
    for run in filter(is_diverged, runs):
        run.validation = min(validation, key=question.key, default=None)
        run.test = min(test, key=question.key, default=None)


def asked_target(runs: Sequence[Run]) -> float | None:
    """The ``trainer.target`` that all runs had, if they had one."""
    targets = {nested(run.config, "trainer", "target") for run in runs}
    return targets.pop() if len(targets) == 1 else None


def targets(rows: Sequence[Row], question: Question, asked: float | None) -> list[float]:
    """What was asked for, and what candidates reach in half of their runs: all, half, the best."""
    medians = sorted(
        float(np.median([question.key(run.validation) for run in row.runs]))
        for row in rows
        if row.runs
    )
    reached = [question.key(medians[i]) for i in (0, len(medians) // 2, -1)]
    if asked is not None:
        reached[1] = asked
    return sorted(set(reached), key=question.key)


def judge(rows: Sequence[Row], question: Question) -> None:
    """Test every pair of rows, correct for all of them, and say what that allows to say.

    All pairs count, since the first row is the best by the very values that are tested: any other
    could have stood in its place.
    """
    tested = {row.name: row for row in rows if row.scores}
    found = all_differences(list(tested.values()))
    for name, row in tested.items():
        to_others = {other: found[name, other] for other in tested if other != name}
        if not to_others:
            row.verdict = ""  # there is nothing that it was compared with
            return
        better = [other for other, diff in to_others.items() if is_worse(diff, question)]
        may_be_best = any(diff.p is not None for diff in to_others.values())
        row.verdict = WORSE if better else MAY_BE_BEST if may_be_best else UNTESTED
        row.rival = next(iter(better or to_others))
        row.difference = to_others[row.rival]
        row.wins = wins(row, tested[row.rival], question)
    standing = [row for row in tested.values() if row.verdict != WORSE]
    if len(standing) == 1:
        standing[0].verdict = BEST
    measure_to_best(list(tested.values()), question)


def all_differences(rows: Sequence[Row]) -> dict[tuple[str, str], Difference]:
    """Each row minus each other, with p corrected for all pairs that can be tested."""
    pairs = list(combinations(rows, 2))
    both = {}
    for (one, other), diff in zip(pairs, differences(pairs), strict=True):
        both[one.name, other.name], both[other.name, one.name] = diff, mirrored(diff)
    return both


def against(rows: Sequence[Row], baseline: str) -> list[tuple[Row, Difference]]:
    """Each other row, and that row minus ``baseline``, with p corrected for these pairs alone.

    That is right for a baseline that was named before any result was seen.

    Raises:
        ReportError: no row of that name has a value.
    """
    tested = {row.name: row for row in rows if row.scores}
    if baseline not in tested:
        names = "; ".join(tested)  # which may have commas
        raise ReportError(f"--against {baseline}: no such candidate with a value among {names}")
    others = [row for row in tested.values() if row.name != baseline]
    found = differences([(row, tested[baseline]) for row in others])
    return list(zip(others, found, strict=True))


def differences(pairs: Sequence[tuple[Row, Row]]) -> list[Difference]:
    """Of each pair the first minus the second, with p corrected for all that can be tested."""
    found = [apart(one.scores, other.scores, len(pairs)) for one, other in pairs]
    adjusted = iter(holm([diff.p for diff in found if diff.p is not None]))
    return [replace(diff, adjusted_p=None if diff.p is None else next(adjusted)) for diff in found]


def apart(row: Mapping[Key, float], other: Mapping[Key, float], num_pairs: int) -> Difference:
    """A row minus another: paired by unit and seed, unless there are too few pairs."""
    shared = {key: row[key] - other[key] for key in row if key in other}
    differences = list(unit_means(shared).values())
    if len(differences) >= LEAST_UNITS:
        return paired(differences, num_pairs)
    return unpaired(*(list(unit_means(of).values()) for of in (row, other)))


def mirrored(diff: Difference) -> Difference:
    low, high = (None if end is None else -end for end in (diff.high, diff.low))
    return replace(diff, mean=-diff.mean, low=low, high=high)


def is_worse(diff: Difference, question: Question) -> bool:
    """Whether a difference to another is detectably to the worse."""
    return diff.adjusted_p is not None and diff.adjusted_p < ALPHA and question.key(diff.mean) < 0


def wins(row: Row, rival: Row, question: Question) -> Estimate | None:
    """How often a run beats the rival's of the same unit and seed."""
    tables = []  # units by seeds
    for of in (row, rival):
        lost = {(run.unit, run.seed): math.inf for run in of.diverged}
        tables.append(pd.Series({**of.scores, **lost}, dtype=float).unstack())
    a, b = tables[0].align(tables[1])
    if (a.isna() | b.isna()).all(axis=None):
        return None
    return probability_of_improvement(a.to_numpy(), b.to_numpy(), question.key(1.0))


def measure_to_best(rows: Sequence[Row], question: Question) -> None:
    """How far each is from the best other; with intervals, over the units that all have."""
    means = [unit_means(row.scores) for row in rows]
    units = pd.DataFrame(means).dropna(axis=1).to_numpy().T
    is_enough = len(units) >= LEAST_UNITS
    ends = np.transpose(to_the_best(units, question.key(1.0))) if is_enough else None
    found = units.mean(axis=0) if is_enough else [np.mean(list(of.values())) for of in means]
    for i, row in enumerate(rows):
        best_other = max((question.key(at) for j, at in enumerate(found) if j != i))
        low, high = ends[i] if ends is not None and np.isfinite(ends[i]).all() else (None, None)
        row.to_best = Estimate(float(found[i] - question.key(best_other)), low, high, len(units))
