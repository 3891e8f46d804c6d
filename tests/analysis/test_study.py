"""A study's record places its runs: tuned on some seeds, judged on others."""

import json
import shutil

import numpy as np
import pytest
from scipy import stats

from analysis.comparison import compare
from analysis.figures import figures_of, palette_of
from analysis.plot import inline_svg
from analysis.sweep import read_sweep
from tests.analysis.run_directories import edit, write_run

SPACE = {
    "optimizer.lr": {"low": 0.01, "high": 1.0, "log": True},
    "optimizer.nesterov": [True, False],
}


REPLICATES = 3


@pytest.fixture
def study(tmp_path):
    """Two candidates; replicates of three trials, halved once, and of two fresh seeds."""
    folder = tmp_path / "study"
    runs, best = [], []
    for name, optim in (("sgd", "sgd_cosine"), ("adam", "adam_constant")):
        for replicate in range(REPLICATES):
            seed, place = 1000 * replicate, {"candidate": name, "replicate": replicate}
            for trial, (lr, last) in enumerate([(0.01, 0.9), (0.1, 0.95), (1.0, 0.5)]):
                status = "pruned" if trial == 2 else "completed"
                run_dir = folder / f"{name}-r{replicate}-tune-{trial:03d}"
                write_run(run_dir, optim, seed, lr, last, status)
                tried = {"trial": trial, "params": {"optimizer.lr": lr}, "audited": None}
                runs.append(place | tried | entry(run_dir, "tune", status))
            chosen = {"trial": 1, "params": {"optimizer.lr": 0.1 * (1 + replicate)}}
            best.append(place | chosen | {"value": 0.95})
            for fresh in (1, 2):
                run_dir = folder / f"{name}-r{replicate}-repeat-001-seed{seed + fresh}"
                write_run(run_dir, optim, seed + fresh, chosen["params"]["optimizer.lr"])
                runs.append(place | chosen | entry(run_dir, "repeat", "completed"))
                run_dir = folder / f"{name}-r{replicate}-untuned-seed{seed + fresh}"
                write_run(run_dir, optim, seed + fresh, 0.05, level=0.8)
                runs.append(place | {"params": {}} | entry(run_dir, "untuned", "completed"))
    candidate = {"overrides": ["optim=sgd_cosine"], "space": SPACE, "source": "a <paper>"}
    record = {
        "protocol": {
            "name": "s", "replicates": REPLICATES, "trials": 3, "seeds_per_replicate": 2,
            "sampler": "sobol", "halving": {"rungs": [0.3], "keep": 0.6},
            "candidates": {"sgd": candidate, "adam": {"space": SPACE}, "lamb": None},
        },
        "finished": True,
        "monitor": "val/accuracy",
        "monitor_mode": "max",
        "best": best,
        "at_bounds": {},
        "runs": runs,
        "tuning_compute": {"steps": 140, "steps_without_halving": 180, "saved_fraction": 2 / 9},
    }  # fmt: skip
    (folder / "study.json").write_text(json.dumps(record))
    return folder


def entry(run_dir, phase, status):
    return {"run_dir": run_dir.name, "phase": phase, "status": status}


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
    untuned = table.loc[["sgd, untuned", "adam, untuned"]]
    assert (untuned["verdict"] == "not compared").all()
    assert untuned["test/accuracy"].max() < 0.85
    table = table.drop(untuned.index)
    assert set(table.index) == {"sgd", "adam"}
    assert (table["n"] == REPLICATES).all()
    assert (table["num_reported"] == 2 * REPLICATES).all()
    assert (table["num_settings"] == 3 * REPLICATES).all()
    assert table.loc["sgd", "best_setting"] == "optimizer.lr=0.1 to 0.3"
    assert "optimistic" not in out, "the repeats chose nothing"
    assert "for these settings" not in out
    table = run_report(study, "--by", "optim")[1]
    assert table["n"].to_dict() == {"sgd_cosine": 3, "adam_constant": 3}


def test_the_replicate_is_the_unit(study, run_report):
    """Its value is the mean of its seeds; intervals and tests are over these means."""
    table = run_report(study)[1]
    means = {}
    for name in ("sgd", "adam"):
        files = sorted(study.glob(f"{name}-r*-repeat-*/summary.json"))
        of_runs = [json.loads(file.read_text())["test/accuracy"] for file in files]
        means[name] = np.reshape(of_runs, (REPLICATES, 2)).mean(axis=1)
    low, high = stats.t.interval(0.95, 2, means["sgd"].mean(), stats.sem(means["sgd"]))
    sgd, adam = table.loc["sgd"], table.loc["adam"]
    assert sgd["test/accuracy"] == pytest.approx(means["sgd"].mean())
    assert [sgd["test/accuracy_low"], sgd["test/accuracy_high"]] == pytest.approx([low, high])
    assert adam["p"] == pytest.approx(stats.ttest_rel(means["adam"], means["sgd"]).pvalue)
    assert adam["rival"] == "sgd"


def test_one_replicate_is_about_its_settings(study, change, run_report):
    record = json.loads((study / "study.json").read_text())
    for run in record["runs"]:
        if run["replicate"] > 0:
            shutil.rmtree(study / run["run_dir"])
    first = [run for run in record["runs"] if run["replicate"] == 0]
    change({"protocol": record["protocol"] | {"replicates": 1}, "runs": first})
    out, table = run_report(study)
    assert table["n"].to_dict()["sgd"] == 2, "seeds"
    assert "for these settings, not for the candidates in general" in out


def test_the_protocol_is_in_the_page(study, run_report):
    run_report(study)
    html = page_of(study)
    assert "The whole procedure was run 3 times, with different seeds for search" in html
    assert "each time, each candidate was tuned with 3 trials (Sobol sampling) on one seed" in html
    assert " on one seed, with successive halving at " in html
    assert (
        "the setting with the best validation accuracy was then trained on 2 fresh seeds." in html
    )
    assert "22% of the tuning updates saved (140 instead of 180)" in html
    assert "{low: 0.01, high: 1.0, log: true}" in html
    assert "[true, false]" in html
    assert "a &lt;paper&gt;" in html


def test_what_speaks_against_a_verdict_stands_beside_it(study, change, run_report):
    out, _ = run_report(study)
    assert "had 3 trials, fewer than 5 per tuned hyperparameter for sgd (2) and adam (2)" in out
    assert "whether any of the 6 pruned trials would have won is unknown" in page_of(study)

    def audit(run):
        if run["phase"] == "tune" and run["status"] == "pruned":
            run["audited"] = 0.99 if run["candidate"] == "sgd" else 0.5

    record = json.loads((study / "study.json").read_text())
    record["protocol"]["candidates"]["adam"]["space"] = {"optimizer.lr": SPACE["optimizer.lr"]}
    change(record)
    assert "unequal numbers of tuned hyperparameters: sgd 2 and adam 1." in run_report(study)[0]
    change({"at_bounds": {"sgd": {"optimizer.lr": "high"}}}, run=audit)
    out, _ = run_report(study)
    doubts = (
        "the optimizer.lr of sgd (high)",
        "Halving changed the selected setting",
        "99.00% instead of",
    )
    for said in doubts:
        assert said in out
        assert said in page_of(study).partition("<h2>")[0], "before everything else"
    assert "Rerun the study with hydra.sweeper.extend=true to search there." in out
    change(run=lambda run: run.update(trial=run.get("trial", 0) + 3))  # the second round
    out, _ = run_report(study)
    assert "had 6 trials, fewer than 5 per" in out
    assert "extend=true" not in out


def test_finished_repeats_of_a_killed_study_are_used(study, change, run_report):
    change({"finished": False})
    edit(study / "sgd-r2-repeat-001-seed2001", status="running")
    edit(study / "sgd-r2-repeat-001-seed2002", status="running")
    out, table = run_report(study)
    assert (table["n"]["sgd"], table["n"]["adam"]) == (2, 3)
    assert "The study study is not finished: 10 of 12 repeats have ended" in out
    assert "Unequal numbers of replicates, from 2 to 3" in out
    assert "2 unfinished (sgd)" in out
    edit(study / "sgd-r2-repeat-001-seed2001", status="completed")
    assert (
        "Unequal numbers of seeds per replicate: a replicate is unfinished" in run_report(study)[0]
    )


def test_trials_of_a_study_killed_in_tuning(study, change, run_report):
    """A trial that waits at a rung may show more than one that went to the end."""
    change({"finished": False})
    for run in [*study.glob("*-repeat-*"), *study.glob("*-untuned-*"), *study.glob("*-r[12]-*")]:
        if run.exists():
            shutil.rmtree(run)
    out, table = run_report(study)
    assert (table["num_settings"] == 3).all()
    assert table["n"].to_dict() == {"sgd": 1, "adam": 1}
    assert "0 of 12 repeats have ended; the report shows its trials" in out
    edit(study / "sgd-r0-tune-000", best={"value": 0.99}, planned_steps=10)
    out, table = run_report(study)
    assert table.loc["sgd", "best_setting"] == "optimizer.lr=0.1"
    assert "before their schedule ends" not in out
    shutil.rmtree(study / "sgd-r0-tune-001")
    assert (
        "Runs that were configured to stop before their schedule ends: sgd." in run_report(study)[0]
    )


def test_a_study_without_trials_and_one_with_a_damaged_record(study, tmp_path, refused):
    begun = tmp_path / "begun"
    write_run(begun / "preflight" / "sgd-0")
    (begun / "study.json").write_text("{}")
    assert refused(begun) == f"error: {begun}: the study has not started tuning yet\n"
    (study / "study.json").write_text("{")
    assert refused(study).startswith(f"error: {study / 'study.json'} is damaged: ")


def test_untuned_runs_alone_are_no_result(study, refused):
    for run_dir in study.glob("*-repeat-*"):
        edit(run_dir, status="failed", error="OSError: no space left")
    assert refused(study) == (
        "error: no run has finished (12 failed); the first error: OSError: no space left\n"
    )


def test_several_studies_side_by_side(study, tmp_path, monkeypatch, run_report):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(study, tmp_path / "again")
    table = run_report("study", "again")[1]
    tuned = table.index[~table.index.str.endswith("untuned")]
    assert set(tuned) == {"study/sgd", "study/adam", "again/sgd", "again/adam"}
    assert (table["n"] == 3).all()


def test_what_broke_in_a_trial_is_told_from_what_broke_in_a_repeat(study, run_report):
    edit(study / "sgd-r0-tune-000", status="diverged")
    edit(study / "sgd-r0-repeat-001-seed2", status="diverged", best=None)
    out, table = run_report(study)
    assert "1 diverged in tuning (sgd), 1 diverged (sgd): these have no value" in out
    assert table.loc["sgd", "num_reported_diverged"] == 1


def test_pruned_trials_are_marked_and_no_line_is_promised_that_is_not_drawn(study, change):
    """Two numbers are tuned: a line through random points would be noise."""
    change(run=lambda run: run["params"].update({"optimizer.momentum": run.get("trial", 0) / 10}))
    comparison = compare(read_sweep([study]).runs)
    palette, figures = palette_of(comparison), figures_of(comparison)["tuning"]
    html = "".join(inline_svg(figure, palette) + figure.note for figure in figures)
    assert html.count("hollow: pruned, at the value that it had reached;") == 2
    assert html.count("<title>sgd, optimizer.lr=") == 6, "hover text of three settings, twice"
    assert html.count(", pruned: ") == 4
    assert "join the best" not in html


@pytest.mark.parametrize("value", ["[0.9, 0.95]", '{"a": 1}'])
def test_a_setting_may_be_a_list_or_a_mapping(study, change, run_report, value):
    change(run=lambda run: run["params"].update({"optimizer.betas": json.loads(value)}))
    table = run_report(study)[1]
    assert table.loc["sgd", "best_setting"] == f"optimizer.lr=0.1 to 0.3, optimizer.betas={value}"
