"""A study's record places its runs: tuned on some seeds, judged on others."""

import json
import shutil

import pytest

from tests.analysis.run_directories import edit, write_run

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
        for trial, (lr, last) in enumerate([(0.01, 0.9), (0.1, 0.95), (1.0, 0.5)]):
            status = "pruned" if trial == 2 else "completed"
            run_dir = write_run(folder / f"{name}-tune-{trial:03d}", optim, 0, lr, last, status)
            runs.append(entry(run_dir, name, "tune", trial, lr, status) | {"audited": None})
        for seed in (101, 102, 103):
            run_dir = write_run(folder / f"{name}-repeat-seed{seed}", optim, seed, 0.1)
            runs.append(entry(run_dir, name, "repeat", 1, 0.1, "completed"))
    candidate = {"overrides": ["optim=sgd_cosine"], "space": SPACE, "source": "a <paper>"}
    record = {
        "protocol": {
            "name": "s", "trials": 3, "sampler": "sobol", "sampler_seed": 0, "tune_seeds": [0],
            "repeat_seeds": [101, 102, 103], "halving": {"rungs": [0.3], "keep": 0.6},
            "candidates": {"sgd": candidate, "adam": {"space": SPACE}, "lamb": None},
        },
        "finished": True,
        "monitor_mode": "max",
        "best": {name: {"trial": 1, "value": 0.95} for name in ("sgd", "adam")},
        "monitor": "val/accuracy",
        "runs": runs,
        "tuning_compute": {"steps": 140, "steps_without_halving": 180, "saved_fraction": 2 / 9},
    }  # fmt: skip
    (folder / "study.json").write_text(json.dumps(record))
    return folder


def entry(run_dir, candidate, phase, trial, lr, status):
    return {
        "run_dir": run_dir.name, "candidate": candidate, "phase": phase, "trial": trial,
        "params": {"optimizer.lr": lr}, "status": status,
    }  # fmt: skip


@pytest.fixture
def change(study):
    """``change(changes, run=...)``: change the record, and by a function each of its runs."""

    def rewrite(changes=None, run=None):
        record = json.loads((study / "study.json").read_text()) | (changes or {})
        for of_run in record["runs"] if run else ():
            run(of_run)
        (study / "study.json").write_text(json.dumps(record))

    return rewrite


def page_of(study):
    return (study / "report.html").read_text()


def test_candidates_are_judged_on_repeats_alone(study, run_report):
    write_run(study / "preflight" / "sgd-0", level=0.999)
    out, table = run_report(study)
    assert set(table.index) == {"sgd", "adam"}
    assert (table["n"] == 3).all()
    assert (table["num_settings"] == 3).all()
    assert (table["num_runs"] == 6).all()
    assert table.loc["sgd", "best_setting"] == "optimizer.lr=0.1"
    repeats = [
        json.loads((study / f"sgd-repeat-seed{seed}" / "summary.json").read_text())
        for seed in (101, 102, 103)
    ]
    mean = sum(run["best"]["value"] for run in repeats) / 3
    assert table.loc["sgd", "val/accuracy"] == pytest.approx(mean)
    assert "optimistic" not in out, "the repeats chose nothing"
    table = run_report(study, "--by", "optim")[1]
    assert table["n"].to_dict() == {"sgd_cosine": 3, "adam_constant": 3}
    assert table["num_runs"].to_dict() == {"sgd_cosine": 6, "adam_constant": 6}
    assert (table["num_settings"] == 3).all()


def test_the_protocol_is_in_the_page(study, run_report):
    run_report(study)
    html = page_of(study)
    assert "Each was tuned by 3 trials (Sobol sampling, seed 0) on seed 0, with successive" in html
    assert "then repeated on seeds 101, 102 and 103, not used in tuning" in html
    assert "22% of the tuning steps saved (140 in place of 180)" in html
    assert "{low: 0.01, high: 1.0, log: true}" in html
    assert "[true, false]" in html
    assert "a &lt;paper&gt;" in html


@pytest.mark.parametrize(
    ("audited", "said"),
    [
        (0.6, "without halving, the same settings would have been chosen"),
        (0.99, "another setting would have been chosen for sgd (99.00% in place of 95.00%)"),
    ],
)
def test_the_page_says_whether_halving_changed_the_winner(study, change, run_report, audited, said):
    run_report(study)
    assert "whether one of the 2 pruned runs would have won is not known" in page_of(study)

    def audit(run):
        if run["status"] == "pruned":
            run["audited"] = audited if run["candidate"] == "sgd" else 0.5

    change(run=audit)
    run_report(study)
    assert said in page_of(study)
    assert "best in tuning: sgd, with and without halving" in page_of(study)


def test_finished_repeats_of_a_killed_study_are_used(study, change, run_report):
    change({"finished": False})
    edit(study / "sgd-repeat-seed103", status="running")
    out, table = run_report(study)
    assert table["n"].to_dict() == {"sgd": 2, "adam": 3}
    assert "The study study is not finished: 5 of 6 repeats have ended" in out
    assert "Of 12 runs, 1 unfinished (sgd)" in out
    assert "optimistic" not in out, "the repeats chose nothing"
    assert "tuning steps saved" not in page_of(study)


def test_trials_of_a_study_killed_in_tuning(study, change, run_report):
    """A trial that waits at a rung may show more than one that went to the end."""
    change({"finished": False})
    for run in study.glob("*-repeat-*"):
        shutil.rmtree(run)
    out, table = run_report(study)
    assert (table["num_settings"] == 3).all()
    assert table["n"].to_dict() == {"sgd": 1, "adam": 1}
    assert "0 of 6 repeats have ended; its trials are shown" in out
    edit(study / "sgd-tune-000", best={"value": 0.99}, planned_steps=10)
    out, table = run_report(study)
    assert table.loc["sgd", "best_setting"] == "optimizer.lr=0.1"
    assert "ended before their horizon" not in out
    shutil.rmtree(study / "sgd-tune-001")
    assert "Values of runs that ended before their horizon: sgd." in run_report(study)[0]


def test_a_study_without_trials_and_one_with_a_damaged_record(study, tmp_path, refused):
    begun = tmp_path / "begun"
    write_run(begun / "preflight" / "sgd-0")
    (begun / "study.json").write_text("{}")
    assert refused(begun) == f"error: {begun}: the study has not begun to tune\n"
    (study / "study.json").write_text("{")
    assert refused(study).startswith(f"error: {study / 'study.json'} is damaged: ")


def test_several_studies_side_by_side(study, tmp_path, monkeypatch, run_report):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(study, tmp_path / "again")
    table = run_report("study", "again")[1]
    assert set(table.index) == {"study/sgd", "study/adam", "again/sgd", "again/adam"}
    assert (table["n"] == 3).all()


def test_what_broke_in_a_trial_is_told_from_what_broke_in_a_repeat(study, run_report):
    edit(study / "sgd-tune-000", status="diverged")
    edit(study / "sgd-repeat-seed102", status="diverged", best=None)
    out, _ = run_report(study)
    assert "Of 12 runs, 1 diverged in tuning (sgd), 1 diverged (sgd): they are counted" in out
    assert "adam has the highest mean test accuracy" in out, "one of sgd's seeds diverged"


@pytest.mark.usefixtures("figures")
def test_pruned_trials_are_marked_and_no_line_is_promised_that_is_not_drawn(
    study, change, run_report
):
    """Two numbers are tuned: a line through random points would be noise."""
    change(run=lambda run: run["params"].update({"optimizer.momentum": run["trial"] / 10}))
    run_report(study)
    html = page_of(study)
    assert html.count("hollow if it was pruned, at what it had reached by then;") == 2
    assert html.count("<title>sgd, optimizer.lr=") == 6, "hover text of three trials in two figures"
    assert html.count(", pruned: ") == 4
    assert "joins the best" not in html


def test_a_setting_may_be_a_list(study, change, run_report):
    change(run=lambda run: run["params"].update({"optimizer.betas": [0.9, 0.95]}))
    assert set(run_report(study)[1]["best_setting"]) == {
        "optimizer.lr=0.1, optimizer.betas=[0.9, 0.95]"
    }
