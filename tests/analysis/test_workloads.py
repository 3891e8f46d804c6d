"""report.py on studies of several workloads."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.workloads import mean_ranks, ranks_of
from tests.analysis.run_directories import edit_summary, figure_of, write_run, write_study

ACCURACIES = {"sgd": 0.95, "adam": 0.9, "lamb": 0.6}


@pytest.fixture
def digits(tmp_path):
    return write_study(tmp_path / "digits", ACCURACIES, target=0.62)


@pytest.fixture
def text(tmp_path):
    """A study with the reverse ranking, by loss; its best candidate is not in ``digits``."""
    accuracies = {"sgd": 0.6, "adam": 0.8, "lamb": 0.9, "muon": 0.99}
    return write_study(tmp_path / "text", accuracies, data="python_docs", is_loss=True)


@pytest.fixture
def report_of(tmp_path, run_report):
    """``report_of(study, ...)`` returns standard output, ``report.csv`` and the page."""

    def run(*arguments):
        out = run_report(*arguments, "--output", tmp_path / "out")[0]
        page = (tmp_path / "out" / "report.html").read_text()
        return out, pd.read_csv(tmp_path / "out" / "report.csv"), page

    return run


@pytest.mark.usefixtures("draw_figures")
def test_report_of_two_workloads(digits, text, report_of):
    out, table, page = report_of(digits, text)
    rows = table.set_index(["workload", "candidate"])
    assert len(rows) == 6, "a row for each workload and shared candidate"
    assert rows["metric"].unique().tolist() == ["test/accuracy", "test/loss"]
    assert rows.loc["digits", "verdict"].to_dict() == {
        "sgd": "best",
        "adam": "worse",
        "lamb": "worse",
    }
    assert (rows.loc["text", "verdict"] == "worse").all(), (
        "all are worse than muon, which digits lacks"
    )
    assert rows.loc["text", "mean_rank"].to_dict() == {"lamb": 1, "adam": 2, "sgd": 3}
    assert rows.loc["digits", "updates_of_fastest"][list(ACCURACIES)].tolist() == [1, 1.5, np.inf]
    spreads = [rows.loc["digits"].loc[name, "standard_deviations_behind"] for name in ACCURACIES]
    assert spreads[0] == 0 < spreads[1] < spreads[2]
    assert "No candidate may be the best on both workloads." in out
    assert "sgd may be the best on 1 of 2 and is detectably worse on text" in out
    assert "lamb is detectably worse on digits and text" in out
    assert "Lowest mean rank: sgd, adam and lamb, 2.00 of 3." in out
    assert "Without digits: lamb. Without text: sgd." in out
    assert "which are not a random sample of tasks" in out
    assert "Not run on all workloads, so left out here: muon." in out
    assert "On digits and text: Only 4 replicates, so intervals are wide" in out, (
        "a caveat shared by both is printed once"
    )
    figure = figure_of(page, "candidates on each workload")
    value = rows.loc[("digits", "sgd"), "value"]
    assert re.search(rf">{value:.2%}</text>.*?>best</text>", figure, re.S)
    assert "digits 62.00%" in figure_of(page, "updates to the target over workloads")
    assert "mean rank over workloads</figcaption>" in page
    assert "muon has the best test loss" in page, "the claims about each workload"
    assert re.search(r"<code>python report.py \S*digits</code>", page)
    assert not re.search(r"<script|@import| src=| href=|nan|url\((?!#)", page)


def test_ranking_is_stable_when_any_workload_is_left_out(digits, tmp_path, report_of):
    accuracies = ACCURACIES | {"adam": 0.5}
    others = [write_study(tmp_path / data, accuracies, data=data) for data in ("faces", "voices")]
    out = report_of(digits, *others)[0]
    assert "sgd may be the best on all 3 workloads." in out
    assert "sgd stays first whichever workload is left out." in out
    assert "The order changes" not in out
    assert "lamb is detectably worse on 3 of 3; adam is detectably worse on 3 of 3." in out


def test_candidate_without_a_finished_run_ranks_last(digits, text, report_of):
    for run_dir in text.glob("lamb-*"):
        edit_summary(run_dir, status="failed", best=None)
    out, table, _ = report_of(digits, text)
    assert table.set_index("workload").loc["text", "mean_rank"].tolist() == [2, 1, 3]
    assert "lamb is detectably worse on digits and cannot be judged on text" in out


def test_intervals_of_mean_ranks():
    """With two workloads they equal Welch's interval; ranks that do not vary have none."""
    rng = np.random.default_rng(0)
    one, other = (ranks_of(rng.normal(size=(n, 4)) + 0.3 * np.arange(4)) for n in (6, 9))
    for i, rank in enumerate(mean_ranks([one, other])):
        expected = stats.ttest_ind(one[:, i], -other[:, i], equal_var=False).confidence_interval()
        assert rank.mean == pytest.approx((one[:, i].mean() + other[:, i].mean()) / 2)
        assert [rank.low, rank.high] == pytest.approx(np.clip(np.array(expected) / 2, 1, 4))
    assert mean_ranks([np.array([[1.0, 2.0]] * 3)])[0].low is None
    assert mean_ranks([one, one[:1]])[0].low is None


def test_user_errors_are_one_line(digits, text, tmp_path, report_error, run_report):
    few = write_study(tmp_path / "few", {"sgd": 0.9, "lion": 0.9}, data="faces", is_loss=True)
    again = write_study(tmp_path / "again", ACCURACIES)
    sweep = write_run(tmp_path / "sweep" / "0")
    for arguments, error in {
        (digits, few): "digits and few are different workloads and share sgd: a report over",
        (digits, again, text): "digits and again are of the same workload: pass only one of them",
        (digits, text, sweep): (
            f"{sweep} belongs to no study: a report over workloads takes studies"
        ),
        (digits, text, "--target", "0.5"): "--target is for the report of one study",
        (digits, text, "--against", "sgd"): "--against is for the report of one study",
        (digits, text, "--mode", "min"): "several workloads: --mode needs --metric",
        (digits, text, "--metric", "val/f1", "--mode", "max"): "digits: no finished run has val/f1",
    }.items():
        assert report_error(*arguments).startswith(f"error: {error}")
    for run_dir in text.glob("*-r*"):
        edit_summary(run_dir, status="running")
    assert report_error(digits, text) == "error: text: none of its repeats has finished\n"
    out = run_report(digits, again, "--output", tmp_path / "out")[0]
    assert "again/sgd" in out, "studies of one workload are compared directly"


def test_studies_with_equal_names_are_named_by_path(digits, tmp_path, report_of):
    text = write_study(tmp_path / "b" / "digits", ACCURACIES, data="python_docs")
    names = report_of(digits, text)[1]["workload"].unique()
    assert names.tolist() == [str(text), str(digits)]


@pytest.mark.slow
def test_latex_markdown_and_figures_are_written(digits, text, tmp_path, report_of):
    tex, report, figures = (tmp_path / name for name in ("table.tex", "report.md", "figures"))
    report_of(digits, text, "--latex", tex, "--markdown", report, "--figures", figures)
    assert "candidate & digits (test accuracy) & text (test loss)" in tex.read_text()
    assert "on 2 workloads, with one study each: digits (mnist5k (" in report.read_text()
    assert (figures / "candidates_on_each_workload_column.pdf").is_file()
