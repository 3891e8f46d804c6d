"""What a report says where a comparison is not like for like, or shows less than it seems to."""

import json

import pandas as pd
import pytest

from tests.analysis.run_directories import edit, write_run


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"precision": "bf16"}, "Not the same precision: "),
        ({"hardware": "other", "device": "cuda"}, "Not the same hardware: cuda (other), 1 process"),
        ({"git_dirty": True}, "1 of 10 runs had uncommitted changes"),
        ({"data_order_hash": "other"}, "Not the same order of samples for the same seed (0)"),
        ({"initial_weights_hash": "other"}, "Not the same initial weights for the same seed (0)"),
        ({"synthetic_data": True}, "1 of 10 runs used synthetic data"),
        ({"git_commit": "fedcba"}, "Not the same commit: "),
    ],
)
def test_caveats(sweep, run_report, changes, said):
    folder = sweep()
    edit(folder / "0", **changes)
    assert said in run_report(folder)[1]


def test_unequal_lengths(tmp_path, run_report):
    for seed in range(5):
        write_run(tmp_path / f"a{seed}", "sgd_cosine", seed)
        write_run(
            tmp_path / f"b{seed}", "adam_constant", seed, config={"trainer": {"max_epochs": 9}}
        )
    assert "Not the same length: 3 epochs (sgd_cosine); 9 epochs (adam" in run_report(tmp_path)[1]


def test_the_edge_of_the_search(sweep, run_report):
    folder = sweep(seeds=range(2), lrs=(0.1, 0.2, 0.3))
    write_run(folder / "90", lr=0.4, level=0.99)
    out = run_report(folder)[1]
    assert "The best learning rate of sgd_cosine is the highest tried" in out
    assert "optimistic" in out


def test_equals_are_rarely_told_apart(sweep, run_report):
    """The best of seven equals was chosen by what is tested: all 21 pairs count."""
    optims = tuple(f"equal{i}" for i in range(7))
    folder = sweep(optims, seeds=range(5))
    run_report(folder)
    table = pd.read_csv(folder / "report.csv")
    ranked = table["p"].dropna().sort_values()
    assert table["p_holm"].min() >= min(1.0, ranked.iloc[0] * 7)


def test_a_machine_that_was_not_equally_busy(sweep, run_report):
    folder = sweep()
    assert "not equally busy" not in run_report(folder)[1]
    for run_dir in folder.glob("*/"):
        if json.loads((run_dir / "summary.json").read_text())["seed"] > 1:
            edit(run_dir, step_ms=180.0)
    assert "not equally busy" not in run_report(folder)[1], "the same for both candidates"
    for run_dir in folder.glob("*/"):
        if "adam" in (run_dir / "config.yaml").read_text():
            edit(run_dir, step_ms=300.0)
    assert "a step took 148 ms for sgd_cosine and 300 ms for adam_constant" in run_report(folder)[1]
