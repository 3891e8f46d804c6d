"""The statistics agree with scipy, with published examples, or with counting everything."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import difference, estimate, expected_best, holm, pareto

# the first sample of Student (1908): additional hours of sleep by two drugs, ten patients
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def by_seed(values):
    return dict(enumerate(values))


def test_interval_is_scipys():
    found = estimate(DRUG_1)
    low, high = stats.ttest_1samp(DRUG_1, 0).confidence_interval(0.95)
    assert (found.mean, found.low, found.high) == pytest.approx((0.75, low, high))


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5]])
def test_no_spread_no_interval(values):
    assert estimate(values).low is None


def test_paired_t_on_students_sleep_data():
    found = difference(by_seed(DRUG_1[:9]), by_seed(DRUG_2[:9]))
    assert found.test == "paired t"
    assert found.p == pytest.approx(stats.ttest_rel(DRUG_1[:9], DRUG_2[:9]).pvalue)


def test_wilcoxon_where_differences_are_not_normal():
    """All ten patients: the 4.6 hours of the ninth make Shapiro-Wilk reject."""
    found = difference(by_seed(DRUG_1), by_seed(DRUG_2))
    assert found.test == "Wilcoxon signed-rank"
    assert found.mean == pytest.approx(-1.58)
    assert found.p == pytest.approx(stats.wilcoxon(DRUG_1, DRUG_2).pvalue)


def test_pairs_are_found_by_seed():
    found = difference({3: 1.0, 1: 2.0, 2: 4.0}, {1: 1.0, 2: 2.5, 3: 0.4, 9: 100.0})
    assert found.n == 3
    assert found.mean == pytest.approx((0.6 + 1.0 + 1.5) / 3)


def test_welch_without_shared_seeds():
    found = difference(by_seed(DRUG_1), {-i - 1: v for i, v in enumerate(DRUG_2)})
    expected = stats.ttest_ind(DRUG_1, DRUG_2, equal_var=False)
    assert found.test == "Welch's t"
    assert found.p == pytest.approx(expected.pvalue)
    assert found.high == pytest.approx(expected.confidence_interval().high)


def test_alike_differences_are_never_certain():
    """t would have no variance and claim p = 0 from two seeds."""
    assert difference({0: 0.5, 1: 0.75}, {0: 0.25, 1: 0.5}).p == 0.5
    assert difference({0: 0.5, 1: 0.75}, {0: 0.5, 1: 0.75}).p == 1.0


@pytest.mark.parametrize("other", [{0: 0.4}, {7: 0.4}, {1: 0.4, 2: 0.5}])
def test_too_few_seeds_give_no_p(other):
    assert difference(other, {0: 0.5}).p is None


def test_holm_as_r_documents_it():
    """``p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")``; order and ties do not matter."""
    assert holm([0.04, 0.01, 0.03, 0.05, 0.02]) == pytest.approx([0.09, 0.05, 0.09, 0.09, 0.08])
    assert holm([0.6, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("larger_is_better", [True, False])
def test_expected_best_is_the_mean_over_all_draws(larger_is_better):
    values = [0.3, 0.9, 0.5, 0.5]
    best = max if larger_is_better else min
    expected = [np.mean([best(draw) for draw in product(values, repeat=k)]) for k in range(1, 5)]
    assert expected_best(values, larger_is_better) == pytest.approx(expected)


def test_pareto_front():
    assert pareto([3, 1, 2, 2], [0.9, 0.5, 0.4, 0.7], larger_is_better=True) == [1, 3, 0]
    assert pareto([3, 1], [0.1, 0.1], larger_is_better=False) == [1]
