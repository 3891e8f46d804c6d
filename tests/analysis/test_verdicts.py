"""Verdicts: how runs are paired and tested, and how the outcome is worded."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from analysis.claims import claims_against
from analysis.comparison import Comparison, against, apart, judge, wins
from analysis.question import Question
from analysis.rows import row_of
from analysis.runs import REPEAT
from analysis.statistics import may_be_best
from tests.analysis.run_directories import write_run

ACCURACY = Question("val/accuracy", "test/accuracy", larger_is_better=True)
LOSS = Question("val/loss", None, larger_is_better=False)


def judged_rows(values, question=ACCURACY):
    """Return judged rows by name, best first, for ``values`` of shape (units, candidates)."""
    rows = []
    for name, column in zip("abcdefg", np.asarray(values).T, strict=False):
        row = row_of(name, [], question, {REPEAT})
        row.scores = {(f"unit {i}", str(i)): value for i, value in enumerate(column)}
        rows.append(row)
    rows.sort(key=lambda row: question.key(np.mean(list(row.scores.values()))), reverse=True)
    judge(rows, question)
    return {row.name: row for row in rows}


@pytest.mark.parametrize("question", [ACCURACY, LOSS], ids=["accuracy", "loss"])
@pytest.mark.parametrize("num_units", [2, 5, 12])
def test_verdicts_agree_with_may_be_best(question, num_units):
    """A candidate is called worse if, and only if, it is detectably worse than its rival."""
    rng = np.random.default_rng(num_units)
    seen = set()
    for _ in range(8):
        values = rng.normal(size=(num_units, 5)) + 4 * rng.normal(size=5)
        rows = judged_rows(values, question)
        not_worse = [rows[name].verdict != "worse" for name in "abcde"]
        assert not_worse == may_be_best(values, question.key(1.0)).tolist()
        for row in rows.values():
            is_worse = question.key(row.difference.mean) < 0 and row.difference.adjusted_p < 0.05
            assert is_worse == (row.verdict == "worse")
        seen |= {row.verdict for row in rows.values()}
    assert num_units == 2 or seen == {"may be best", "worse", "best"}


def test_distance_to_the_best_differs_from_difference_to_rival():
    """a has the best mean but is too noisy to be told apart; b is worse than c only."""
    noise = np.array([0.3, -0.1, 0.2, -0.4, 0.1])
    rows = judged_rows(np.stack([9 + 30 * noise, noise[::-1] - 1, noise], axis=1))
    assert [row.verdict for row in rows.values()] == ["may be best", "may be best", "worse"]
    worse = rows["b"]
    assert (worse.rival, worse.wins.mean) == ("c", 0)
    assert worse.difference.mean == pytest.approx(-1)
    assert worse.to_best.mean == pytest.approx(-10.58)
    assert worse.to_best.low < worse.to_best.mean < worse.to_best.high == 0


def test_pairs_share_replicate_and_seed():
    """Replicates of two studies have the same numbers but other seeds, so they are not paired."""
    one = {("replicate 0", "1"): 1.0, ("replicate 0", "2"): 2.0, ("replicate 1", "7"): 5.0}
    same = apart(one, {key: value + 0.5 for key, value in one.items()}, 1)
    assert (same.n, same.mean, same.test) == (2, -0.5, "exact sign-flip")  # equal differences
    gaps = apart(one, {("replicate 0", "1"): 3.0, ("replicate 1", "7"): 6.0}, 1)
    assert (gaps.n, gaps.mean, gaps.test) == (2, -1.5, "paired t")
    others = {(unit, f"100{seed}"): value for (unit, seed), value in one.items()}
    assert apart(one, others, 1).test == "Welch's t"


@pytest.mark.parametrize("question", [ACCURACY, LOSS], ids=["accuracy", "loss"])
def test_wins_are_averaged_over_replicates(question):
    """a wins 1/2 of r0, all shared seeds of r1, and 1/4 of r2 (a tie and a diverged run)."""

    def row(*scores, lost=()):
        result = row_of("", [], question, {REPEAT})
        result.scores = {(unit, seed): question.key(score) for unit, seed, score in scores}
        result.diverged = [SimpleNamespace(unit=unit, seed=seed) for unit, seed in lost]
        return result

    a = row(("r0", "1", 1), ("r0", "2", 4), ("r1", "3", 3), ("r2", "4", 2), lost=[("r2", "5")])
    b = row(("r0", "1", 2), ("r0", "2", 3), ("r1", "3", 1), ("r1", "9", 9), ("r2", "4", 2),
            ("r2", "5", 1))  # fmt: skip
    a_wins = wins(a, b, question)
    assert (a_wins.mean, a_wins.n) == (pytest.approx((0.5 + 1 + 0.25) / 3), 3)
    assert wins(b, a, question).mean == pytest.approx(1 - a_wins.mean)
    one = row(("r1", "3", 1))
    assert (wins(a, one, question).mean, wins(a, one, question).low) == (1, None)
    assert wins(row(lost=[("r0", "1")]), row(lost=[("r0", "1")]), question).mean == 0.5
    assert wins(row(("r0", "1", 1)), row(("r0", "2", 1)), question) is None


@pytest.mark.parametrize("question", [ACCURACY, LOSS], ids=["accuracy", "loss"])
def test_baseline_comparison_corrects_for_its_pairs_only(question):
    """Of six candidates, b is slightly better than a; five pairs need less correction than 15."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(5, 6))
    values[:, 1] = values[:, 0] + question.key(1.0) * np.array([1.0, 1.3, 0.8, 1.2, 0.6])
    rows = judged_rows(values, question)
    differences = against(list(rows.values()), "a")
    p = {row.name: difference.p for row, difference in differences}
    assert p.keys() == set("bcdef")
    assert p["b"] == stats.ttest_rel(values[:, 1], values[:, 0]).pvalue
    adjusted = {row.name: difference.adjusted_p for row, difference in differences}
    assert adjusted["b"] == pytest.approx(5 * p["b"])  # Holm: the smallest of five
    all_pairs = rows["b"].difference if rows["b"].rival == "a" else rows["a"].difference
    assert adjusted["b"] < 0.05
    assert all_pairs.adjusted_p > adjusted["b"]
    comparison = Comparison(question, list(rows.values()), [], [], [], 0.0)
    claims = claims_against(comparison, "a")
    assert claims.startswith("Against a only (p corrected for 5 pairs, ")
    assert "): better: b (" in claims
    assert "; no detectable difference: " in claims


def test_against_option(sweep, run_report, report_error):
    folder = sweep(("sgd_cosine", "adam_constant", "adamw_constant"))
    out, _ = run_report(folder, "--against", "adam_constant")
    assert "Against adam_constant only (p corrected for 2 pairs" in out
    html = (folder / "report.html").read_text()
    assert "Against adam_constant only" in html
    error = report_error(folder, "--against", "adam")
    names = "sgd_cosine; adam_constant; adamw_constant"
    assert error == f"error: --against adam: no such candidate with a value among {names}\n"


def test_candidate_without_a_finished_run_has_no_value(sweep, run_report):
    folder = sweep(("sgd_cosine",))
    for seed in range(5):
        write_run(folder / f"wild{seed}", "wild", seed, status="diverged")
    out, table = run_report(folder)
    assert "The mean test accuracy of sgd_cosine is 9" in out
    assert "Candidates without a finished run: wild." in out
    assert "Diverged runs" not in out, "a candidate without a value needs no note"
    assert table["verdict"].fillna("").to_dict() == {"sgd_cosine": "", "wild": "no value"}


def test_unreached_target_is_reported_as_requested(sweep, run_report):
    folder = sweep(lrs=(0.01, 0.1))
    run_report(folder, "--target", "0.99")
    html = (folder / "report.html").read_text()
    assert "of 99.00% is reached: sgd_cosine nowhere; adam_constant nowhere" in html


def test_cost_of_a_target_is_a_single_column(sweep, run_report):
    folder = sweep(seeds=range(3))
    out, table = run_report(folder, "--target", "0.6")
    assert "┃ to reach 60.00% ┃" in out
    assert "│ 20 updates, 2 s │" in out
    for run_dir in folder.iterdir():
        if run_dir.is_dir() and json.loads((run_dir / "summary.json").read_text())["seed"]:
            lower_accuracy(run_dir)
    out, table = run_report(folder, "--target", "0.6")
    assert "│ only 1 of 3 runs │" in out
    assert set(table["target_1_reached"]) == {1}


def lower_accuracy(run_dir):
    """Divide a run's validation accuracies by ten, so that it reaches no target."""
    file = run_dir / "metrics.jsonl"
    file.write_text(file.read_text().replace('"val/accuracy": 0.', '"val/accuracy": 0.0'))
