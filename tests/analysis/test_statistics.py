"""The statistics agree with scipy, published examples or full enumeration."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import (
    estimate,
    expected_best,
    holm,
    may_be_best,
    median_time,
    paired,
    pareto,
    probability_of_improvement,
    sign_flip,
    to_the_best,
    unpaired,
)

# Student (1908), first example: additional hours of sleep with two drugs, ten patients
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5]])
def test_equal_values_have_no_interval(values):
    assert estimate(values).low is None


@pytest.mark.parametrize("sample", [DRUG_1, np.subtract(DRUG_1, DRUG_2), [0.1, 0.2, -0.3]])
def test_sign_flip_equals_scipy_permutation_test(sample):
    """In some samples, other sign patterns give the observed mean up to rounding."""
    expected = stats.permutation_test(
        (sample,), np.mean, permutation_type="samples", n_resamples=math.inf
    )
    assert sign_flip(sample) == pytest.approx(expected.pvalue)


@pytest.mark.parametrize(
    ("n", "num_comparisons", "test"),
    [
        (7, 1, "paired t"),
        (8, 1, "exact sign-flip"),
        (11, 21, "paired t"),  # four times 2 / 2^11 is above 5 % / 21
        (12, 21, "exact sign-flip"),
        (17, 1, "paired t"),  # too many patterns
    ],
)
def test_paired_uses_sign_flips_only_if_they_can_reject(n, num_comparisons, test):
    sample = np.linspace(0.5, 2.0, n).tolist()
    difference = paired(sample, num_comparisons)
    assert difference.test == test
    t = stats.ttest_1samp(sample, 0.0)
    assert difference.p == pytest.approx(2 / 2**n if test == "exact sign-flip" else t.pvalue)
    assert (difference.low, difference.high) == pytest.approx(tuple(t.confidence_interval()))


def test_unpaired_equals_scipy_welch():
    difference = unpaired(DRUG_1, DRUG_2[:8])
    expected = stats.ttest_ind(DRUG_1, DRUG_2[:8], equal_var=False)
    assert (difference.test, difference.n) == ("Welch's t", 8)
    assert difference.p == pytest.approx(expected.pvalue)
    assert difference.high == pytest.approx(expected.confidence_interval().high)


def test_equal_differences_do_not_give_p_zero():
    """All pairs differ by one image in 10,000, so the only variance is rounding error."""
    images = np.array([1101, 9551, 9803])
    values = np.stack([images / 10_000, (images + 1) / 10_000], axis=1)
    difference = paired((values[:, 1] - values[:, 0]).tolist(), num_comparisons=3)
    assert (difference.p, difference.low) == (2 / 2**3, None)
    assert paired([0.0, 0.0, 0.0], num_comparisons=3).p == 1.0
    low, high = to_the_best(values, 1)
    assert np.isinf([low[0], high[1]]).all()


def test_two_candidates_at_chance_have_finite_intervals():
    """Their difference has no spread, which must not matter, as neither can be the best."""
    values = np.column_stack([DRUG_1, np.add(DRUG_2, 0.5), np.full((10, 2), -90)])
    low, high = to_the_best(values, 1)
    assert np.isfinite(low).all()
    assert (high[2:] == 0).all()


@pytest.mark.parametrize("difference", [paired([0.1], math.inf), unpaired([0.4, 0.5], [0.5])])
def test_single_seed_gives_no_p_value(difference):
    assert difference.p is None


def test_holm_equals_p_adjust_of_r():
    """In R: ``p.adjust(c(0.04, 0.01, 0.03, 0.05, 0.02), "holm")``."""
    assert holm([0.04, 0.01, 0.03, 0.05, 0.02]) == pytest.approx([0.09, 0.05, 0.09, 0.09, 0.08])
    assert holm([0.6, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_may_be_best_excludes_only_beaten_candidates():
    """The last two are equal and beat the second; the first is too noisy to be told apart."""
    noise = np.array([0.3, -0.1, 0.2, -0.4, 0.1])
    values = np.stack([9 * noise, noise[::-1] - 9, noise, noise], axis=1)
    assert may_be_best(values, 1).tolist() == [True, False, True, True]
    assert may_be_best(-values, -1).tolist() == [True, False, True, True]
    assert may_be_best(values[:1], 1).all()  # a single replicate cannot be tested
    assert may_be_best(values[:, :1], 1).all()  # a single candidate has no rival


@pytest.mark.parametrize("shift", [0.1, 9.0])
def test_interval_of_two_candidates_is_one_sided_up_to_zero(shift):
    a, b = np.array(DRUG_1), np.array(DRUG_2) + shift
    margin = stats.t.ppf(0.95, 9) * stats.sem(a - b)
    mean = np.mean(a - b)
    low, high = to_the_best(np.stack([a, b], axis=1), 1)
    assert low == pytest.approx([min(mean - margin, 0), min(-mean - margin, 0)])
    assert high == pytest.approx([max(mean + margin, 0), max(-mean + margin, 0)])
    mirrored = to_the_best(-np.stack([a, b], axis=1), -1)
    assert np.allclose(mirrored, (-high, -low))


def test_identical_seeds_do_not_narrow_the_win_interval():
    """Seeds of one replicate share its tuning, so copies of them add no information."""
    wins = np.array([[0.0], [0.0], [1.0], [0.0], [1.0], [1.0]])
    one = probability_of_improvement(wins)
    many = probability_of_improvement(np.tile(wins, 20))
    assert (one.mean, one.low, one.high) == pytest.approx((many.mean, many.low, many.high), abs=0.1)
    assert one.high - one.low > 0.5


@pytest.mark.parametrize("larger_is_better", [True, False])
def test_expected_best_equals_mean_over_all_subsets(larger_is_better):
    validation, test = [0.3, 0.9, 0.5, 0.5], [0.2, 0.7, 0.8, 0.4]
    best = max if larger_is_better else min

    def value_of_best(subset):
        top = best(validation[i] for i in subset)
        return np.mean([test[i] for i in subset if validation[i] == top])

    subsets = [list(combinations(range(4), k)) for k in range(1, 5)]
    assert expected_best(validation, larger_is_better, test) == pytest.approx(
        [np.mean([value_of_best(subset) for subset in of_size]) for of_size in subsets]
    )
    assert expected_best(validation, larger_is_better) == pytest.approx(
        [
            np.mean([best(validation[i] for i in subset) for subset in of_size])
            for of_size in subsets
        ]
    )


def test_median_time_counts_misses_as_infinite():
    assert median_time([30, 10], 3) == 30
    assert median_time([30, 10, 20], 4) == 25
    assert median_time([30, 10], 4) == math.inf
    assert median_time([], 5) == math.inf


def test_pareto_front_is_sorted_by_cost():
    assert pareto([3, 1, 2, 2], [0.9, 0.5, 0.4, 0.7], larger_is_better=True) == [1, 3, 0]
    assert pareto([3, 1], [0.1, 0.1], larger_is_better=False) == [1]
