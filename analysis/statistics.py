"""The statistics of a comparison: intervals over seeds, paired tests, the cost of tuning."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
WELCH = "Welch's t"
MANY_PAIRS = 10  # from here on a test of normality has some power, and Wilcoxon's too


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % t-interval; none if the seeds show no spread."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def is_cut(self) -> bool:
        """Whether the interval ends at what is possible, to one side or both."""
        if self.low is None or self.high is None:
            return False
        return not math.isclose(self.high - self.mean, self.mean - self.low, rel_tol=1e-6)


@dataclass(frozen=True)
class Difference(Estimate):
    """A candidate minus the best one; n counts pairs, or the smaller sample.

    Attributes:
        p: two-sided; None: cannot be tested.
        test: what was applied, in words; empty if nothing was.
        adjusted_p: after Holm's correction.
    """

    p: float | None = None
    test: str = ""
    adjusted_p: float | None = None


def estimate(
    values: Sequence[float], least: float = -math.inf, greatest: float = math.inf
) -> Estimate:
    """Mean and t-interval of a sample.

    Values that are all alike, as few seeds on a small test set can be, have no interval either:
    one of no width would claim certainty.

    Args:
        values: one finite value per seed; at least one.
        least, greatest: what is possible; the interval ends there.
    """
    mean, n = float(np.mean(values)), len(values)
    if n < 2 or np.ptp(values) == 0:
        return Estimate(mean, None, None, n)
    low, high = stats.t.interval(CONFIDENCE, n - 1, loc=mean, scale=stats.sem(values))
    return Estimate(mean, max(float(low), least), min(float(high), greatest), n)


def difference(candidate: Mapping[Any, float], best: Mapping[Any, float]) -> Difference:
    """How far a candidate is from the best: paired where at least two seeds are shared.

    The paired t-test, or Wilcoxon's signed-rank test where the differences are plainly not normal
    (Shapiro-Wilk at 5 %, from ten pairs on) or all alike, which leaves t no variance. Without
    pairs, Welch's t-test.

    Args:
        candidate: value by seed.
        best: value by seed.
    """
    seeds = [seed for seed in candidate if seed in best]
    if len(seeds) >= 2:
        return paired([candidate[seed] - best[seed] for seed in seeds])
    apart = untested(candidate, best)
    a, b = list(candidate.values()), list(best.values())
    if apart.n < 2 or (np.ptp(a) == 0 and np.ptp(b) == 0):
        return apart
    result = stats.ttest_ind(a, b, equal_var=False)
    low, high = map(float, result.confidence_interval(CONFIDENCE))
    return replace(apart, low=low, high=high, p=float(result.pvalue), test=WELCH)


def untested(candidate: Mapping[Any, float], best: Mapping[Any, float]) -> Difference:
    """How far the means are apart, and nothing more."""
    mean = np.mean(list(candidate.values())) - np.mean(list(best.values()))
    return Difference(float(mean), None, None, min(len(candidate), len(best)))


def paired(differences: Sequence[float]) -> Difference:
    """Test whether differences by seed are centred on zero."""
    sample, around = np.asarray(differences), estimate(differences)
    alike = np.ptp(sample) <= 1e-12 * np.abs(sample).max()
    if not sample.any():
        p, test = 1.0, "identity of every pair"
    elif alike or (len(sample) >= MANY_PAIRS and stats.shapiro(sample).pvalue < ALPHA):
        p, test = stats.wilcoxon(sample).pvalue, "Wilcoxon signed-rank"
    else:
        p, test = stats.ttest_1samp(sample, 0.0).pvalue, "paired t"
    return Difference(around.mean, around.low, around.high, around.n, float(p), test)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for multiple comparison (Holm 1979, step-down Bonferroni)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    factors = len(p) - np.arange(len(p))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return [float(value) for value in adjusted]


def expected_best(values: Sequence[float], larger_is_better: bool) -> NDArray[np.float64]:
    """Expected best of k random trials, for k = 1 to n (Dodge et al. 2019, arXiv:1909.03004).

    The k trials are drawn with replacement from the n that were run: the i-th smallest value is
    their maximum with probability (i/n)^k - ((i-1)/n)^k.
    """
    sign = 1.0 if larger_is_better else -1.0
    ordered = np.sort(sign * np.asarray(values, dtype=float))
    n = len(ordered)
    k = np.arange(1, n + 1)[:, None]
    at_most = (np.arange(n + 1) / n) ** k  # [k, i]: all k draws are among the i smallest
    return sign * (np.diff(at_most, axis=1) @ ordered)


def pareto(costs: Sequence[float], values: Sequence[float], larger_is_better: bool) -> list[int]:
    """Positions of the points that no other beats in both cost and value, cheapest first."""
    sign = 1.0 if larger_is_better else -1.0
    front: list[int] = []
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -sign * values[i])):
        if not front or sign * values[i] > sign * values[front[-1]]:
            front.append(i)
    return front
