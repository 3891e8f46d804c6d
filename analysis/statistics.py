"""The statistics of a comparison: intervals, paired tests, the best candidate, the cost of tuning.

If candidates were tuned several times, the unit is the replicate: a value is the mean over the
seeds of one tuning, paired across candidates. Seeds of one tuning share the setting that it found,
so as units they would test these settings, not the candidates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
WELCH = "Welch's t"
PAIRED_T = "paired t"
SIGN_FLIP = "exact sign-flip"
MOST_FLIPPED = 16  # pairs; their 65,536 sign patterns take a tenth of a second
LEVEL_MARGIN = 4  # the level must exceed the smallest p of sign flips by this factor
NUM_RESAMPLES = 2000  # bootstrap resamples
ROUNDING = 1e-9  # relative; a difference of one test image in 10,000 is exact to 1e-12


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % t-interval, or with none if the values do not vary."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def is_cut(self) -> bool:
        """Whether the interval was clipped to the possible range."""
        if self.low is None or self.high is None:
            return False
        return not math.isclose(self.high - self.mean, self.mean - self.low, rel_tol=1e-6)


@dataclass(frozen=True)
class Difference(Estimate):
    """One candidate minus another; n is the number of pairs, or the smaller sample size.

    Attributes:
        p: two-sided p-value; None if it cannot be tested.
        test: name of the applied test; empty if there was none.
        adjusted_p: p after Holm's correction.
    """

    p: float | None = None
    test: str = ""
    adjusted_p: float | None = None


def estimate(
    values: Sequence[float], least: float = -math.inf, greatest: float = math.inf
) -> Estimate:
    """Mean and t-interval of a sample.

    Equal values, which a few seeds on a small test set can give, have no interval: a width of zero
    would claim certainty.

    Args:
        values: one finite value per seed; at least one.
        least, greatest: possible range, to which the interval is clipped.
    """
    sample, n = np.asarray(values, dtype=float), len(values)
    mean = float(sample.mean())
    if n < 2 or is_alike(sample):
        return Estimate(mean, None, None, n)
    half = float(upper_t(ALPHA / 2, n - 1) * standard_error(sample))
    return Estimate(mean, max(mean - half, least), min(mean + half, greatest), n)


def unpaired(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Difference of two unpaired samples by Welch's t-test; n is that of the smaller one."""
    difference = Difference(float(np.mean(a) - np.mean(b)), None, None, min(len(a), len(b)))
    if difference.n < 2 or (np.ptp(a) == 0 and np.ptp(b) == 0):
        return difference
    from scipy import stats  # takes 50 MB and half a second, and is rarely needed

    result = stats.ttest_ind(a, b, equal_var=False)
    low, high = map(float, result.confidence_interval(CONFIDENCE))
    return replace(difference, low=low, high=high, p=float(result.pvalue), test=WELCH)


def paired(differences: Sequence[float], num_comparisons: float) -> Difference:
    """Mean of paired differences with its t-interval, tested against zero.

    Args:
        differences: one per pair; at least one.
        num_comparisons: how many p-values will be corrected together; see `paired_p`.
    """
    around = estimate(differences)
    if around.n < 2:
        return Difference(around.mean, None, None, around.n)
    flips = can_flip(around.n, num_comparisons) or bool(is_alike(np.asarray(differences)))
    p = float(paired_p(differences, num_comparisons))
    test = SIGN_FLIP if flips else PAIRED_T
    return Difference(around.mean, around.low, around.high, around.n, p, test)


def paired_p(differences: ArrayLike, num_comparisons: float) -> NDArray[np.float64]:
    """Two-sided p that the mean of paired differences is zero.

    Uses the exact sign-flip test if it can reject, and the paired t-test with fewer pairs. The
    choice depends only on sizes that are known in advance, never on the data. Equal differences
    have no variance for t, so they get the p of sign flips, 2/2^n.

    Args:
        differences: (..., n); the last axis holds one comparison.
        num_comparisons: how many p-values will be corrected together; if infinite, always t.
    """
    sample = np.asarray(differences, dtype=float)
    n = sample.shape[-1]
    if can_flip(n, num_comparisons):
        return sign_flip(sample)
    alike = is_alike(sample)
    t = sample.mean(axis=-1) / np.where(alike, 1.0, standard_error(sample))
    flipped = np.where(sample.any(axis=-1), 2.0 ** (1 - n), 1.0)
    two_sided = 2 * special.stdtr(max(n - 1, 1), -np.abs(t))  # Student's t distribution
    return np.where(alike, flipped, two_sided)


def can_flip(n: int, num_comparisons: float) -> bool:
    """Whether the smallest p of n sign flips, 2/2^n, is well below Holm's strictest level.

    If it is only just below, the test has less power than t with fewer pairs.
    """
    return n <= MOST_FLIPPED and LEVEL_MARGIN * 2.0 ** (1 - n) < ALPHA / num_comparisons


def sign_flip(differences: ArrayLike) -> NDArray[np.float64]:
    """Two-sided p of the exact sign-flip test (Fisher 1935, The Design of Experiments, 21).

    Under the null hypothesis each difference is as likely to have the opposite sign: p is the share
    of all 2^n sign patterns whose mean is at least as far from zero as the observed one.

    Args:
        differences: (..., n), n at most `MOST_FLIPPED`.
    """
    sample = np.asarray(differences, dtype=float)
    others = np.arange(sample.shape[-1] - 1)[:, None]  # the first sign is fixed, by symmetry
    signs = 1.0 - 2.0 * (np.arange(2 ** len(others)) >> others & 1)
    sums = np.abs(sample[..., :1] + sample[..., 1:] @ signs)
    rounding = ROUNDING * np.abs(sample).sum(axis=-1, keepdims=True)
    return (sums >= sums[..., :1] - rounding).mean(axis=-1)


def is_alike(sample: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether all values along the last axis are equal up to rounding."""
    return np.ptp(sample, axis=-1) <= ROUNDING * np.abs(sample).max(axis=-1)


def upper_t(p: ArrayLike, freedom: ArrayLike) -> NDArray[np.float64]:
    """The value that Student's t distribution exceeds with probability ``p``."""
    return -special.stdtrit(freedom, p)


def standard_error(sample: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard error of the mean along the last axis; zero for a single value."""
    n = sample.shape[-1]
    return sample.std(axis=-1) / math.sqrt(max(n - 1, 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for multiple comparison (Holm 1979, step-down Bonferroni)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    factors = len(p) - np.arange(len(p))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return [float(value) for value in adjusted]


def may_be_best(values: ArrayLike, sign: float) -> NDArray[np.bool_]:
    """Whether no other candidate is detectably better, Holm-corrected over all pairs; (k,).

    If all are equal, at most 5 % of studies exclude one. Excluding all whose interval of
    `to_the_best` ends at zero would do so in a quarter of the studies with seven candidates.

    Args:
        values: (n replicates, k candidates), without gaps.
        sign: 1 where larger is better, -1 where smaller is.
    """
    sample = sign * np.asarray(values, dtype=float)
    means = sample.mean(axis=0)
    one, other = np.triu_indices(len(means), 1)
    p = holm(paired_p((sample[:, one] - sample[:, other]).T, len(one) or 1).tolist())
    lower = np.where(means[one] < means[other], one, other)
    standing = np.ones(len(means), dtype=bool)
    standing[lower[np.asarray(p) < ALPHA]] = False
    return standing


def to_the_best(values: ArrayLike, sign: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Simultaneous 95 % intervals of each candidate's mean minus the best other's; (k,) each.

    Hsu's constrained multiple comparisons with the best (Hsu 1984, Annals of Statistics 12:1136;
    Hsu 1996, Multiple Comparisons, chapter 4). Every interval contains zero or ends there. A pair
    with equal differences has no spread, so its bounds are infinite.

    Args:
        values: (n replicates, k candidates), without gaps; both at least 2.
        sign: 1 where larger is better, -1 where smaller is.
    """
    # Only the k - 1 one-sided bounds of the true best b must hold, each at 5 % / (k - 1), which
    # allows any covariance: b - j <= mean of (b - j) + margin, for every j. It follows that
    # - b minus the best other is at most `most` of b, so b is among `candidates`;
    # - any other i minus b is at least its lower bound with b, so at least `least` of i.
    # The other two ends always hold: b minus the best other is >= 0, i minus b is <= 0.
    sample = sign * np.asarray(values, dtype=float).T
    k, n = sample.shape
    gaps = sample[:, None] - sample  # (i, j, replicate): i minus j
    margin = upper_t(ALPHA / (k - 1), n - 1) * standard_error(gaps)
    margin[is_alike(gaps)] = math.inf
    mean, diagonal = gaps.mean(axis=-1), np.eye(k, dtype=bool)
    most = np.where(diagonal, math.inf, mean + margin).min(axis=1)
    candidates = most >= 0
    least = np.where(diagonal | ~candidates, math.inf, mean - margin).min(axis=1)
    low, high = np.minimum(least, 0.0), np.maximum(most, 0.0)
    return (low, high) if sign > 0 else (0.0 - high, 0.0 - low)


def probability_of_improvement(wins: Sequence[Sequence[float]]) -> Estimate:
    """How often a run of A beats the run of B with the same replicate and seed.

    Bouthillier et al. 2021, arXiv:2103.03098; Agarwal et al. 2021, arXiv:2108.13264. The share of
    wins per replicate, averaged, with a 95 % percentile bootstrap over replicates and over seeds
    within each. A single replicate, or no spread, gives no interval.

    Args:
        wins: by replicate, for every seed of which both have a run: 1 if A wins, 1/2 for a tie, 0.
    """
    n = len(wins)
    mean = float(np.mean([np.mean(row) for row in wins]))
    rng = np.random.default_rng(0)
    chosen = rng.integers(n, size=(NUM_RESAMPLES, n))
    sizes = np.array([len(row) for row in wins])
    table = np.zeros((n, max(sizes)))
    table[np.arange(max(sizes)) < sizes[:, None]] = np.concatenate(wins)
    size = sizes[chosen][..., None]
    seeds = (rng.random((*chosen.shape, max(sizes))) * size).astype(int)
    redrawn = table[chosen[..., None], seeds] * (np.arange(max(sizes)) < size)
    means = (redrawn.sum(axis=-1) / sizes[chosen]).mean(axis=1)
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    if n < 2 or low == high:
        return Estimate(mean, None, None, n)
    return Estimate(mean, float(low), float(high), n)


def expected_best(
    validation: Sequence[float], larger_is_better: bool, test: Sequence[float] | None = None
) -> NDArray[np.float64]:
    """Expected value of the trial with the best validation among k, for k = 1 to n.

    The k trials are drawn without replacement from the n that were run, so the trial of rank i from
    the worst is the best with probability C(i-1, k-1) / C(n, k) (Tang et al. 2020,
    arXiv:2004.14373). Drawing with replacement is biased (Dodge et al. 2019, arXiv:1909.03004).

    Args:
        test: the value of each trial; None: its validation. Ties are averaged.
    """
    score = np.asarray(validation, dtype=float) * (1.0 if larger_is_better else -1.0)
    worth = np.asarray(validation if test is None else test, dtype=float)
    n = len(score)
    _, group, size = np.unique(score, return_inverse=True, return_counts=True)
    ordered = (np.bincount(group, worth) / size)[np.sort(group)]
    k = np.arange(1, n + 1)[:, None]
    # at [k, i]: probability that all k draws are among the i worst
    at_most = np.cumprod(np.maximum(np.arange(n + 1) - k + 1, 0) / (n - k + 1), axis=0)
    return np.diff(at_most, axis=1) @ ordered


def median_time(times: Sequence[float], num_runs: int) -> float:
    """Median time to a target over all runs; a run that missed it counts as infinite.

    Args:
        times: of the runs that reached the target.
        num_runs: all runs, with those that did not; at least 1.

    Returns:
        Infinite if half of the runs or more missed it.
    """
    return float(np.median([*times, *[math.inf] * (num_runs - len(times))]))


def pareto(costs: Sequence[float], values: Sequence[float], larger_is_better: bool) -> list[int]:
    """Positions of the points that no other beats in both cost and value, cheapest first."""
    sign = 1.0 if larger_is_better else -1.0
    front: list[int] = []
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -sign * values[i])):
        if not front or sign * values[i] > sign * values[front[-1]]:
            front.append(i)
    return front
