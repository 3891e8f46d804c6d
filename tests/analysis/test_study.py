"""A study's record places its runs: tuned on some seeds, judged on others."""

import json

import pandas as pd
import pytest

import report
from tests.analysis.run_directories import write_run

SPACE = {
    "optimizer.lr": {"low": 0.01, "high": 1.0, "log": True},
    "optimizer.nesterov": [True, False],
}


@pytest.fixture
def study(tmp_path):
    """Two candidates, three trials of one seed each, halved once, and three fresh seeds."""
    folder = tmp_path / "study"
    runs = []
    for name, optim in (("sgd", "sgd_cosine"), ("adam", "adam_constant")):
        for trial, (lr, first, last) in enumerate(
            [(0.01, 0.8, 0.9), (0.1, 0.7, 0.95), (1.0, 0.5, 0.5)]
        ):
            run = f"{name}-tune-{trial:03d}"
            pruned = trial == 2
            status = "pruned" if pruned else "completed"
            write_run(folder / run, optim, 0, lr, last, status)
            runs.append({
                "run_dir": run, "candidate": name, "phase": "tune", "trial": trial, "seed": 0,
                "params": {"optimizer.lr": lr}, "status": status,
                "rungs": [{"step": 10, "value": first}, {"step": 30, "value": last}][: 2 - pruned],
            })  # fmt: skip
        for seed in (101, 102, 103):
            run = f"{name}-repeat-seed{seed}"
            write_run(folder / run, optim, seed, 0.1)
            runs.append({
                "run_dir": run, "candidate": name, "phase": "repeat", "trial": 1, "seed": seed,
                "params": {"optimizer.lr": 0.1}, "status": "completed",
            })  # fmt: skip
    candidate = {"overrides": ["optim=sgd_cosine"], "space": SPACE, "source": "a <paper>"}
    record = {
        "protocol": {
            "name": "s", "trials": 3, "sampler": "sobol", "sampler_seed": 0, "tune_seeds": [0],
            "repeat_seeds": [101, 102, 103], "halving": {"rungs": [0.3], "keep": 0.6},
            "candidates": {"sgd": candidate, "adam": {"overrides": [], "space": {}}},
        },
        "monitor_mode": "max",
        "best": {name: {"trial": 1, "value": 0.95} for name in ("sgd", "adam")},
        "monitor": "val/accuracy",
        "runs": runs,
        "tuning_compute": {"steps": 140, "steps_without_halving": 180, "saved_fraction": 2 / 9},
    }  # fmt: skip
    (folder / "study.json").write_text(json.dumps(record))
    return folder


def test_candidates_are_judged_on_repeats_alone(study, capsys):
    assert report.main([str(study)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    table = pd.read_csv(study / "report.csv").set_index("candidate")
    assert set(table.index) == {"sgd", "adam"}
    assert (table["n"] == 3).all()
    assert (table["num_settings"] == 3).all()
    assert (table["num_runs"] == 6).all()
    assert table.loc["sgd", "best_setting"] == "lr=0.1"
    repeats = [
        json.loads((study / f"sgd-repeat-seed{seed}" / "summary.json").read_text())
        for seed in (101, 102, 103)
    ]
    mean = sum(run["best"]["value"] for run in repeats) / 3
    assert table.loc["sgd", "val/accuracy"] == pytest.approx(mean)
    assert "optimistic" not in out, "the repeats chose nothing"


def test_the_protocol_is_in_the_page(study):
    report.main([str(study)])
    html = (study / "report.html").read_text()
    assert "3 trials for each candidate, sampler sobol" in html
    assert "22% of the tuning steps saved (140 in place of 180)" in html
    assert "the leader of the first rung was overtaken later, for sgd, adam" in html
    assert "0.01 to 1.0, logarithmic" in html
    assert "one of True, False" in html
    assert "a &lt;paper&gt;" in html


@pytest.mark.parametrize(
    ("audited", "said"),
    [
        (0.6, "without halving, the same settings would have been chosen"),
        (0.99, "another setting would have been chosen for sgd (99.00% in place of 95.00%)"),
    ],
)
def test_the_page_says_whether_halving_changed_the_winner(study, audited, said):
    report.main([str(study)])
    assert "whether one of the 2 pruned runs would have won is not known" in page_of(study)
    record = json.loads((study / "study.json").read_text())
    for entry in record["runs"]:
        if entry["status"] == "pruned":
            entry["audited"] = audited if entry["candidate"] == "sgd" else 0.5
    (study / "study.json").write_text(json.dumps(record))
    report.main([str(study)])
    assert said in page_of(study)
    assert "best in tuning: sgd, with and without halving" in page_of(study)


def page_of(study):
    return (study / "report.html").read_text()


def test_trials_alone_make_the_tuning_curves(study):
    report.main([str(study)])
    html = (study / "report.html").read_text()
    assert html.count("<title>sgd, lr=") == 3


@pytest.mark.parametrize("record", ["{", '{"runs": [{}, 1]}', '{"costs": {}}'])
def test_an_unfinished_record_leaves_a_plain_sweep(study, record, capsys):
    (study / "study.json").write_text(record)
    assert report.main([str(study)]) == 0
    assert "sgd_cosine" in capsys.readouterr().out
