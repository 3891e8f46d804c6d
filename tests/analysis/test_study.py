"""A study's record places its runs: tuned on some seeds, judged on others."""

import json
import shutil

import pandas as pd
import pytest

import report
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
            "candidates": {"sgd": candidate, "adam": {"overrides": [], "space": SPACE}},
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


@pytest.mark.parametrize("record", ["{", '{"runs": [{}, 1]}', '{"protocol": 3}'])
def test_a_record_that_cannot_be_read_leaves_the_names(study, record, capsys):
    (study / "study.json").write_text(record)
    assert report.main([str(study)]) == 0
    table = pd.read_csv(study / "report.csv").set_index("candidate")
    assert set(table.index) == {"sgd", "adam"}
    assert (table["n"] == 3).all()
    assert "The study study is not finished" in capsys.readouterr().out


@pytest.fixture
def killed(study):
    """The study as it is left by a kill in the repeats: no word of any run but the preflight's."""
    record = json.loads((study / "study.json").read_text())
    del record["runs"], record["best"], record["tuning_compute"]
    (study / "study.json").write_text(json.dumps(record))
    write_run(study / "preflight" / "sgd-0", "sgd_cosine", 0, 0.3, level=0.999)
    (study / "sgd-repeat-seed103" / "summary.json").unlink()
    return study


def test_finished_repeats_of_a_killed_study_are_used(killed, capsys):
    assert report.main([str(killed)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    table = pd.read_csv(killed / "report.csv").set_index("candidate")
    assert "2 candidates, 12 runs" in out
    assert table["n"].to_dict() == {"sgd": 2, "adam": 3}
    assert table.loc["sgd", "best_setting"] == "lr=0.1"
    assert "The study study is not finished: 5 of 6 repeats have ended" in out
    assert "repeat: 1 unfinished" in out
    assert "optimistic" not in out, "the repeats chose nothing"


def test_trials_of_a_study_killed_in_tuning(killed, capsys):
    for run in killed.glob("*-repeat-*"):
        shutil.rmtree(run)
    assert report.main([str(killed)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    table = pd.read_csv(killed / "report.csv").set_index("candidate")
    assert (table["num_settings"] == 3).all()
    assert table["n"].to_dict() == {"sgd": 1, "adam": 1}
    assert "0 of 6 repeats have ended; its trials are shown" in out


def test_an_early_value_does_not_choose_a_setting(killed, capsys):
    """A trial that waits at a rung may show more than one that went to the end."""
    for run in killed.glob("*-repeat-*"):
        shutil.rmtree(run)
    config = {"trainer": {"limit_train_steps": 10}}
    shutil.rmtree(killed / "sgd-tune-000")
    write_run(
        killed / "sgd-tune-000", lr=0.01, level=0.99, config=config, horizon_steps=30, steps=10
    )
    report.main([str(killed)])
    table = pd.read_csv(killed / "report.csv").set_index("candidate")
    assert table.loc["sgd", "best_setting"] == "lr=0.1"
    assert "ended before their horizon" not in capsys.readouterr().out
    shutil.rmtree(killed / "sgd-tune-001")
    report.main([str(killed)])
    assert "Values of runs that ended before their horizon: sgd." in capsys.readouterr().out


def test_preflight_alone_is_no_result(tmp_path, capsys):
    (tmp_path / "study.json").write_text("{}")
    write_run(tmp_path / "preflight" / "sgd-0")
    assert report.main([str(tmp_path)]) == 1
    assert "the study has not begun to tune" in capsys.readouterr().err


def test_by_regroups_a_study_without_mixing_trials_and_repeats(study):
    write_run(study / "preflight" / "sgd-0", level=0.999)
    assert report.main([str(study), "--by", "optim"]) == 0
    table = pd.read_csv(study / "report.csv").set_index("candidate")
    assert table["n"].to_dict() == {"sgd_cosine": 3, "adam_constant": 3}
    assert table["num_runs"].to_dict() == {"sgd_cosine": 6, "adam_constant": 6}
    assert (table["num_settings"] == 3).all()


def test_several_studies_side_by_side(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(study, tmp_path / "again")
    write_run(tmp_path / "again" / "preflight" / "sgd-0", level=0.999)
    assert report.main(["study", "again"]) == 0
    table = pd.read_csv("report/report.csv").set_index("candidate")
    assert set(table.index) == {"study/sgd", "study/adam", "again/sgd", "again/adam"}
    assert (table["n"] == 3).all()


def test_a_record_says_itself_whether_its_study_is_over(study, capsys):
    for finished, said in ((True, False), (False, True)):
        record = json.loads((study / "study.json").read_text()) | {"finished": finished}
        (study / "study.json").write_text(json.dumps(record))
        report.main([str(study)])
        assert ("is not finished: 6 of 6 repeats" in capsys.readouterr().out) == said
        assert ("the leader of the first rung" in page_of(study)) == finished


def test_what_broke_in_a_trial_is_told_from_what_broke_in_a_repeat(study, capsys):
    edit(study / "sgd-tune-000", status="diverged")
    edit(study / "sgd-repeat-seed102", status="diverged", best=None)
    report.main([str(study)])
    out = " ".join(capsys.readouterr().out.split())
    assert "tune: 1 diverged, 1 pruned; repeat: 1 diverged" in out
    assert "adam has the highest mean test accuracy" in out, "one of sgd's seeds diverged"


@pytest.mark.usefixtures("figures")
def test_pruned_trials_are_marked_and_no_line_is_promised_that_is_not_drawn(study):
    """Two numbers are tuned: a line through random points would be noise."""
    record = json.loads((study / "study.json").read_text())
    for entry, momentum in zip(record["runs"], range(1000), strict=False):
        if entry["phase"] == "tune":
            entry["params"]["optimizer.momentum"] = momentum
    (study / "study.json").write_text(json.dumps(record))
    report.main([str(study)])
    html = page_of(study)
    assert html.count("hollow if it was pruned, at what it had reached by then.") == 2
    assert html.count("<title>sgd, lr=") == 6, "hover text of three trials in two figures"
    assert html.count(", pruned: ") == 4
    assert "A pruned trial counts with what it had reached by then" in html
    assert "through the best" not in html


def test_a_setting_may_be_a_list(study):
    record = json.loads((study / "study.json").read_text())
    for entry in record["runs"]:
        entry["params"]["optimizer.betas"] = [0.9, 0.95]
    (study / "study.json").write_text(json.dumps(record))
    assert report.main([str(study)]) == 0
    table = pd.read_csv(study / "report.csv")
    assert set(table["best_setting"]) == {"lr=0.1, betas=[0.9, 0.95]"}
