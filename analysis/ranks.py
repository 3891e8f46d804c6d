"""Ranks of candidates over workloads, in the mean over replicates."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.statistics import ALPHA, Estimate, upper_t

DIGITS = 12  # after the point: what differs by rounding alone is a tie


def ranks_of(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks within each row, 1 for the largest; ties share their mean rank."""
    rounded = pd.DataFrame(np.asarray(values, dtype=float).round(DIGITS))
    return rounded.rank(axis=1, ascending=False).to_numpy()


def mean_ranks(workloads: Sequence[NDArray[np.float64]]) -> list[Estimate]:
    """Each candidate's mean rank over workloads, with a 95 % t-interval over their replicates.

    Degrees of freedom are Welch's and Satterthwaite's. The workloads are given: the interval is
    about other replicates on them, not about other workloads. Ranks are taken within replicates. A
    bootstrap of the ranks of means would be biased to the middle: among five near equals on four
    workloads its interval holds the truth in 42 % of cases (n = 3), this one in 96 %.

    Args:
        workloads: of each the ranks, (n replicates, k candidates).
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
    """Candidates, the rows, by their mean over workloads; ties in the order they have."""
    return list(means_of(ranks).sort_values(kind="stable").index)


def first_of(ranks: pd.DataFrame) -> list[str]:
    """Those with the lowest mean."""
    means = means_of(ranks)
    return list(means.index[means == means.min()])


def means_of(ranks: pd.DataFrame) -> pd.Series:
    return ranks.mean(axis=1).round(DIGITS)
