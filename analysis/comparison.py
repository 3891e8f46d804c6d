"""Compare rows: which candidates may be the best, and how far behind the others are."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from analysis.question import Question, ask, reported
from analysis.rows import Key, Row, add_costs, rows_of, unit_means
from analysis.runs import DIVERGED, TUNE, ReportError, Run, nested
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

# verdicts
BEST = "best"  # the only one that no other is detectably better than
MAY_BE_BEST = "may be best"
WORSE = "worse"
UNTESTED = "cannot be tested"
NOT_COMPARED = "not compared"
LEAST_UNITS = 2


@dataclass(frozen=True)
class Comparison:
    question: Question
    rows: list[Row]  # best first
    untuned: list[Row]  # a study's candidates with their default settings
    runs: list[Run]
    targets: list[float]  # values to report the cost of reaching, easiest first
    target: float  # the requested one, else the middle one

    @property
    def best(self) -> Row:
        return self.rows[0]

    @property
    def used(self) -> list[Run]:
        """The finished runs behind the values in the tables."""
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
        """Names of the applied tests."""
        return sorted({row.difference.test for row in self.rows if row.difference} - {""})

    def metrics(self, start: str, end: str) -> list[str]:
        """Recorded metrics by prefix and suffix; several if training has several phases."""
        names = {name for run in self.used for name in run.curves}
        return sorted(name for name in names if name.startswith(start) and name.endswith(end))


def compare(
    runs: list[Run],
    metric: str | None = None,
    mode: str | None = None,
    target: float | None = None,
) -> Comparison:
    """Compute a row per candidate, best first, and test all pairs.

    Args:
        metric: to compare on; None: the one that the runs monitor.
        mode: ``max`` or ``min``; None: the one with which the runs monitor ``metric``.
        target: value to report the cost of reaching; None: ``trainer.target`` if all runs share it.

    Raises:
        ReportError: if no run has a value to compare, the runs monitor different metrics, or the
            mode of the metric is not known.
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
    rows.sort(key=lambda row: sort_key(row, question), reverse=True)
    tuned = [row for row in rows if not row.is_untuned]
    untuned = [row for row in rows if row.is_untuned]
    requested = common_target(used) if target is None else target
    target_values = targets(tuned, question, requested)
    for row in rows:
        add_costs(row, question, target_values)
    judge(tuned, question)
    for row in untuned:
        row.verdict = NOT_COMPARED
    middle = target_values[len(target_values) // 2] if requested is None else requested
    return Comparison(question, tuned, untuned, runs, target_values, middle)


def without_test(rows: Sequence[Row]) -> list[str]:
    """Candidates without a tested run."""
    return [row.name for row in rows if row.runs and all(run.test is None for run in row.runs)]


def sort_key(row: Row, question: Question) -> tuple[bool, float]:
    return bool(row.runs), question.key(row.value.mean if row.value else None)


def count_divergence(runs: Sequence[Run], question: Question) -> None:
    """Give diverged runs the worst value of any finished run, so that they lose every pair."""
    finished = [run for run in runs if run.finished]
    validation = [run.validation for run in finished if run.validation is not None]
    test = [run.test for run in finished if run.test is not None]
    for run in [run for run in runs if run.status == DIVERGED]:
        run.validation = min(validation, key=question.key, default=None)
        run.test = min(test, key=question.key, default=None)


def common_target(runs: Sequence[Run]) -> float | None:
    """The ``trainer.target`` that all runs share, else None."""
    targets = {nested(run.config, "trainer", "target") for run in runs}
    return targets.pop() if len(targets) == 1 else None


def targets(rows: Sequence[Row], question: Question, requested: float | None) -> list[float]:
    """Values that all, half (or: ``requested``) and the best rows reach in half their runs."""
    medians = sorted(
        float(np.median([question.key(run.validation) for run in row.runs]))
        for row in rows
        if row.runs
    )
    reached = [question.key(medians[i]) for i in (0, len(medians) // 2, -1)]
    if requested is not None:
        reached[1] = requested
    return sorted(set(reached), key=question.key)


def judge(rows: Sequence[Row], question: Question) -> None:
    """Test every pair of rows, corrected for all pairs, and set the verdicts.

    The correction covers all pairs because the tested values also determine which row is first: it
    could have been any other.
    """
    tested = {row.name: row for row in rows if row.scores}
    by_pair = all_differences(list(tested.values()))
    for name, row in tested.items():
        to_others = {other: by_pair[name, other] for other in tested if other != name}
        if not to_others:
            row.verdict = ""  # nothing to compare it with
            return
        better = [other for other, diff in to_others.items() if is_worse(diff, question)]
        may_be_best = any(diff.p is not None for diff in to_others.values())
        row.verdict = WORSE if better else MAY_BE_BEST if may_be_best else UNTESTED
        row.rival = next(iter(better or to_others))
        row.difference = to_others[row.rival]
        row.wins = wins(row, tested[row.rival], question)
    not_worse = [row for row in tested.values() if row.verdict != WORSE]
    if len(not_worse) == 1:
        not_worse[0].verdict = BEST
    measure_to_best(list(tested.values()), question)


def all_differences(rows: Sequence[Row]) -> dict[tuple[str, str], Difference]:
    """Every row minus every other, with p corrected for all pairs that can be tested."""
    pairs = list(combinations(rows, 2))
    by_pair = {}
    for (one, other), diff in zip(pairs, differences(pairs), strict=True):
        by_pair[one.name, other.name], by_pair[other.name, one.name] = diff, mirrored(diff)
    return by_pair


def against(rows: Sequence[Row], baseline: str) -> list[tuple[Row, Difference]]:
    """Every other row and its difference from ``baseline``, p corrected for these pairs only.

    This is valid for a baseline that was chosen before any result was seen.

    Raises:
        ReportError: if no row of that name has a value.
    """
    tested = {row.name: row for row in rows if row.scores}
    if baseline not in tested:
        names = "; ".join(tested)  # names may contain commas
        raise ReportError(f"--against {baseline}: no such candidate with a value among {names}")
    others = [row for row in tested.values() if row.name != baseline]
    found = differences([(row, tested[baseline]) for row in others])
    return list(zip(others, found, strict=True))


def differences(pairs: Sequence[tuple[Row, Row]]) -> list[Difference]:
    """First minus second of each pair, with p corrected for all pairs that can be tested."""
    found = [apart(one.scores, other.scores, len(pairs)) for one, other in pairs]
    adjusted = iter(holm([diff.p for diff in found if diff.p is not None]))
    return [replace(diff, adjusted_p=None if diff.p is None else next(adjusted)) for diff in found]


def apart(row: Mapping[Key, float], other: Mapping[Key, float], num_pairs: int) -> Difference:
    """One row minus another, paired by unit and seed unless there are too few pairs."""
    shared = {key: row[key] - other[key] for key in row if key in other}
    differences = list(unit_means(shared).values())
    if len(differences) >= LEAST_UNITS:
        return paired(differences, num_pairs)
    return unpaired(*(list(unit_means(scores).values()) for scores in (row, other)))


def mirrored(diff: Difference) -> Difference:
    low, high = (None if end is None else -end for end in (diff.high, diff.low))
    return replace(diff, mean=-diff.mean, low=low, high=high)


def is_worse(diff: Difference, question: Question) -> bool:
    """Whether a difference is detectable and to the worse."""
    return diff.adjusted_p is not None and diff.adjusted_p < ALPHA and question.key(diff.mean) < 0


def wins(row: Row, rival: Row, question: Question) -> Estimate | None:
    """How often a run beats the rival's run with the same unit and seed; None without any."""
    ours, theirs = (
        {key: question.key(score) for key, score in one.scores.items()}
        | {(run.unit, run.seed): -math.inf for run in one.diverged}
        for one in (row, rival)
    )
    by_unit: dict[str, list[float]] = defaultdict(list)
    for key in sorted(ours.keys() & theirs.keys()):
        unit, _ = key
        by_unit[unit].append((ours[key] > theirs[key]) + (ours[key] == theirs[key]) / 2)
    return probability_of_improvement(list(by_unit.values())) if by_unit else None


def measure_to_best(rows: Sequence[Row], question: Question) -> None:
    """Set every row's difference from the best other, with intervals over the shared units."""
    means = [unit_means(row.scores) for row in rows]
    units = pd.DataFrame(means).dropna(axis=1).to_numpy().T
    is_enough = len(units) >= LEAST_UNITS
    ends = np.transpose(to_the_best(units, question.key(1.0))) if is_enough else None
    found = units.mean(axis=0) if is_enough else [np.mean(list(m.values())) for m in means]
    for i, row in enumerate(rows):
        best_other = max((question.key(at) for j, at in enumerate(found) if j != i))
        low, high = ends[i] if ends is not None and np.isfinite(ends[i]).all() else (None, None)
        row.to_best = Estimate(float(found[i] - question.key(best_other)), low, high, len(units))
