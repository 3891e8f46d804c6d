"""Studies of several workloads: the same candidates on different data, models or metrics.

Each workload is compared by itself. Values of different metrics cannot be averaged: over workloads,
verdicts are counted, and ranks and distances in a common unit are compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.comparison import Comparison, compare
from analysis.page import Report
from analysis.rows import Row, unit_means
from analysis.runs import REPEAT, UNTUNED, ReportError
from analysis.statistics import ALPHA, Estimate, upper_t
from analysis.study import Study
from analysis.sweep import Sweep, command_of, leaves_of, names_of, placed, without_unresolved
from analysis.words import listed, words

TASK = ("model", "data", "objective")  # sections that define a workload, with the metric
LEAST_SHARED = 2  # candidates
DIGITS = 12  # decimals to which ranks and values are rounded, so that rounding errors are ties


@dataclass(frozen=True)
class Workload:
    """One workload: the report of its study, and the candidates that all workloads have."""

    report: Report
    names: list[str]  # of the candidates, in the same order on every workload

    @property
    def name(self) -> str:
        return self.report.title

    @property
    def comparison(self) -> Comparison:
        return self.report.comparison

    @property
    def heading(self) -> str:
        """The heading of its column in a table; may be wrapped."""
        return f"{self.name.replace('_', ' ')} ({words(self.comparison.question.decides)})"

    @cached_property
    def rows(self) -> list[Row]:
        found = {row.name: row for row in self.comparison.rows}
        return [found[name] for name in self.names]

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """Each candidate's mean, larger is better; minus infinity without a finished run."""
        key = self.comparison.question.key
        return np.array([key(row.value.mean if row.value else None) for row in self.rows])

    @cached_property
    def ranks(self) -> NDArray[np.float64]:
        """Ranks of the candidates within each replicate that all have; (n, k).

        If they share none, the ranks of their means, with n = 1.
        """
        found = {row.name: unit_means(row.scores) for row in self.rows if row.scores}
        shared = pd.DataFrame(found).dropna().map(self.comparison.question.key)
        units = shared.reindex(columns=self.names, fill_value=-math.inf).to_numpy()
        return ranks_of(units if len(units) else self.values[None])

    @cached_property
    def behind(self) -> NDArray[np.float64]:
        """Distance to the study's best, in standard deviations between replicates or seeds.

        The unit is the median over candidates: one that may diverge would hide all distances.
        NaN without spread.
        """
        rows = [row for row in self.comparison.rows if row.num_units > 1]
        spreads = [np.std(list(unit_means(row.scores).values()), ddof=1) for row in rows]
        spread = float(np.median(spreads)) if spreads else 0.0
        best = self.comparison.best.value
        gaps = self.comparison.question.key(best.mean if best else None) - self.values
        return gaps / spread if spread else np.full(len(gaps), math.nan)

    @cached_property
    def slowdown(self) -> NDArray[np.float64]:
        """Updates to the target as a multiple of the fastest's; infinite if not reached."""
        target = self.comparison.target
        updates = np.array([hit.steps for r in self.rows for hit in r.hits if hit.target == target])
        is_reached = np.isfinite(updates)
        fastest = updates[is_reached].min(initial=math.inf)
        return np.divide(updates, fastest, out=np.full(len(updates), math.inf), where=is_reached)


def by_workload(sweep: Sweep, by: Sequence[str], metric: str | None) -> dict[str, Sweep]:
    """The studies of a sweep by name, if they cover several workloads; else empty.

    Args:
        by: as for `read_sweep`.
        metric: the one to compare all on, if requested.

    Raises:
        ReportError: if they share too few candidates and monitor different metrics, some are of
            the same workload, or some runs belong to no study.
    """
    studies = sweep.studies
    if len(studies) < 2 or len(set(tasks := tasks_of(studies))) < 2:
        return {}
    names = names_of(studies)
    shared = set.intersection(*map(candidates_of, studies))
    if len(shared) < LEAST_SHARED:
        if metric is None and len({study.record.monitor for study in studies}) > 1:
            raise ReportError(
                f"{listed(names)} are different workloads and share "
                f"{listed(sorted(shared)) or 'no candidate'}: a report over workloads needs at "
                f"least {LEAST_SHARED} common candidates"
            )
        return {}
    if same := [name for name, task in zip(names, tasks, strict=True) if tasks.count(task) > 1]:
        raise ReportError(f"{listed(same)} are of the same workload: pass only one of them")
    of_studies = {run for study in studies for run in study.runs}
    if others := [run for run in sweep.runs if run not in of_studies]:
        raise ReportError(
            f"{others[0].path} belongs to no study: a report over workloads takes studies only"
        )
    of_names = sorted(zip(names, studies, strict=True), key=itemgetter(0))
    return {name: placed(study.runs, command_of(study.directory), by) for name, study in of_names}


def tasks_of(studies: Sequence[Study]) -> list[tuple[str, ...]]:
    """Per study: its metric, and the model, data and objective settings that no study varies."""
    runs = [(i, run) for i, study in enumerate(studies) for run in study.runs if run.config]
    leaves = without_unresolved([leaves_of(run) for _, run in runs])
    table = pd.DataFrame(leaves, index=[i for i, _ in runs]).reindex(
        columns=sorted({key for leaf in leaves for key in leaf if key.split(".")[0] in TASK})
    )
    by_study = table.astype(str).groupby(level=0)
    tasks = by_study.first().loc[:, (by_study.nunique() == 1).all()].reindex(range(len(studies)))
    settings = tasks.astype(str).to_numpy().tolist()
    return [(study.record.monitor, *row) for study, row in zip(studies, settings, strict=True)]


def candidates_of(study: Study) -> set[str]:
    runs = [run for run in study.runs if run.candidate and run.phase != UNTUNED]
    return {run.candidate.removeprefix(study.prefix) for run in runs}


def workloads_of(sweeps: dict[str, Sweep], metric: str | None, mode: str | None) -> list[Workload]:
    """The workloads, with their candidates in the order of mean ranks.

    Raises:
        ReportError: if a workload cannot be compared.
    """
    reports = []
    for name, sweep in sweeps.items():
        if not any(run.phase == REPEAT and run.finished for run in sweep.runs):
            raise ReportError(f"{name}: none of its repeats has finished")
        try:
            reports.append(Report(compare(sweep.runs, metric, mode), sweep, name))
        except ReportError as error:
            raise ReportError(f"{name}: {error}") from None
    found = [[row.name for row in report.comparison.rows] for report in reports]
    shared = [name for name in found[0] if all(name in names for names in found)]
    order = by_mean(rank_table([Workload(report, shared) for report in reports]))
    return [Workload(report, order) for report in reports]


def rank_table(workloads: Sequence[Workload]) -> pd.DataFrame:
    """The mean rank of every candidate (rows) on every workload (columns)."""
    means = {workload.name: workload.ranks.mean(axis=0) for workload in workloads}
    return pd.DataFrame(means, index=workloads[0].names)


def ranks_of(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks within each row, 1 for the largest; ties share their mean rank."""
    rounded = pd.DataFrame(np.asarray(values, dtype=float).round(DIGITS))
    return rounded.rank(axis=1, ascending=False).to_numpy()


def mean_ranks(workloads: Sequence[NDArray[np.float64]]) -> list[Estimate]:
    """Each candidate's mean rank over workloads, with a 95 % t-interval over their replicates.

    Degrees of freedom follow Welch and Satterthwaite. Workloads are fixed: the interval covers
    other replicates on them, not other workloads. Ranks are taken within replicates, since a
    bootstrap of the ranks of means is biased to the middle: for five near equals on four workloads
    its interval contains the truth in 42 % of cases (n = 3), this one in 96 %.

    Args:
        workloads: the ranks on each, (n replicates, k candidates).
    """
    means = np.mean([ranks.mean(axis=0) for ranks in workloads], axis=0)
    num = np.array([[len(ranks)] for ranks in workloads])
    n = int(num.min())
    found = [Estimate(mean, None, None, n) for mean in means.tolist()]
    if n < 2:
        return found
    variances = np.array([ranks.var(axis=0, ddof=1) for ranks in workloads]) / num
    for i in np.flatnonzero(variances.any(axis=0)):
        of_workloads, variance = variances[:, i], variances[:, i].sum()
        freedom = variance**2 / (of_workloads**2 / (num[:, 0] - 1)).sum()
        half = upper_t(ALPHA / 2, freedom) * np.sqrt(variance) / len(num)
        low, high = max(means[i] - half, 1.0), min(means[i] + half, float(len(means)))
        found[i] = Estimate(float(means[i]), float(low), float(high), n)
    return found


def by_mean(ranks: pd.DataFrame) -> list[str]:
    """Candidates (rows) sorted by their mean over workloads; ties keep their order."""
    return list(means_of(ranks).sort_values(kind="stable").index)


def first_of(ranks: pd.DataFrame) -> list[str]:
    """The candidates with the lowest mean."""
    means = means_of(ranks)
    return list(means.index[means == means.min()])


def means_of(ranks: pd.DataFrame) -> pd.Series:
    return ranks.mean(axis=1).round(DIGITS)
