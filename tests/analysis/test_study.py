"""Reports of studies, which tune candidates on some seeds and compare them on others."""

import json
import shutil

import numpy as np
import pytest
from scipy import stats

from analysis.comparison import compare
from analysis.figures import figures_of, palette_of
from analysis.plot import inline_svg
from analysis.sweep import read_sweep
from tests.analysis.run_directories import edit_summary, write_run

SPACE = {
    "optimizer.lr": {"low": 0.01, "high": 1.0, "log": True},
    "optimizer.nesterov": [True, False],
}
REPLICATES = 3


@pytest.fixture
def study(tmp_path):
    """A finished study of two candidates: three trials, two repeats, two untuned a replicate."""
    folder = tmp_path / "study"
    runs, best = [], []
    for name, optim in (("sgd", "sgd_cosine"), ("adam", "adam_constant")):
        for replicate in range(REPLICATES):
            seed, ids = 1000 * replicate, {"candidate": name, "replicate": replicate}
            for trial, (lr, accuracy) in enumerate([(0.01, 0.9), (0.1, 0.95), (1.0, 0.5)]):
                status = "pruned" if trial == 2 else "completed"
                run_dir = folder / f"{name}-r{replicate}-tune-{trial:03d}"
                write_run(run_dir, optim, seed, lr, accuracy, status)
                fields = {"trial": trial, "params": {"optimizer.lr": lr}, "audited": None}
                runs.append(ids | fields | entry(run_dir, "tune", status))
            chosen = {"trial": 1, "params": {"optimizer.lr": 0.1 * (1 + replicate)}}
            best.append(ids | chosen | {"value": 0.95})
            for offset in (1, 2):
                run_dir = folder / f"{name}-r{replicate}-repeat-001-seed{seed + offset}"
                write_run(run_dir, optim, seed + offset, chosen["params"]["optimizer.lr"])
                runs.append(ids | chosen | entry(run_dir, "repeat", "completed"))
                run_dir = folder / f"{name}-r{replicate}-untuned-seed{seed + offset}"
                write_run(run_dir, optim, seed + offset, 0.05, accuracy=0.8)
                runs.append(ids | {"params": {}} | entry(run_dir, "untuned", "completed"))
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
    """Return the fields of a run's entry in ``study.json`` that all phases have."""
    return {"run_dir": run_dir.name, "phase": phase, "status": status}


@pytest.fixture
def edit_record(study):
    """``edit_record(changes, edit_run)`` updates ``study.json``; ``edit_run`` edits each run."""

    def edit(changes=None, edit_run=None):
        record = json.loads((study / "study.json").read_text()) | (changes or {})
        for run in record["runs"] if edit_run else ():
            edit_run(run)
        (study / "study.json").write_text(json.dumps(record))

    return edit


def page_of(study):
    return (study / "report.html").read_text()


def test_candidates_are_compared_on_repeats_only(study, run_report):
    write_run(study / "preflight" / "sgd-0", accuracy=0.999)
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
    assert "optimistic" not in out, "no setting was selected on the repeats"
    assert "for these settings" not in out
    table = run_report(study, "--by", "optim")[1]
    assert table["n"].to_dict() == {"sgd_cosine": 3, "adam_constant": 3}


def test_replicate_is_the_unit_of_analysis(study, run_report):
    """A replicate's value is the mean over its seeds; intervals and tests use these means."""
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


def test_single_replicate_limits_claims_to_its_settings(study, edit_record, run_report):
    record = json.loads((study / "study.json").read_text())
    for run in record["runs"]:
        if run["replicate"] > 0:
            shutil.rmtree(study / run["run_dir"])
    first = [run for run in record["runs"] if run["replicate"] == 0]
    edit_record({"protocol": record["protocol"] | {"replicates": 1}, "runs": first})
    out, table = run_report(study)
    assert table["n"].to_dict()["sgd"] == 2, "seeds"
    assert "for these settings, not for the candidates in general" in out


def test_page_describes_the_protocol(study, run_report):
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


def test_caveats_are_printed_and_precede_the_results(study, edit_record, run_report):
    out, _ = run_report(study)
    assert "had 3 trials, fewer than 5 per tuned hyperparameter for sgd (2) and adam (2)" in out
    assert "whether any of the 6 pruned trials would have won is unknown" in page_of(study)

    def audit(run):
        if run["phase"] == "tune" and run["status"] == "pruned":
            run["audited"] = 0.99 if run["candidate"] == "sgd" else 0.5

    record = json.loads((study / "study.json").read_text())
    record["protocol"]["candidates"]["adam"]["space"] = {"optimizer.lr": SPACE["optimizer.lr"]}
    edit_record(record)
    assert "unequal numbers of tuned hyperparameters: sgd 2 and adam 1." in run_report(study)[0]
    edit_record({"at_bounds": {"sgd": {"optimizer.lr": "high"}}}, edit_run=audit)
    out, _ = run_report(study)
    caveats = (
        "the optimizer.lr of sgd (high)",
        "Halving changed the selected setting",
        "99.00% instead of",
    )
    for caveat in caveats:
        assert caveat in out
        assert caveat in page_of(study).partition("<h2>")[0], "caveats come first"
    assert "Rerun the study with hydra.sweeper.extend=true to search there." in out
    # a second round of tuning
    edit_record(edit_run=lambda run: run.update(trial=run.get("trial", 0) + 3))
    out, _ = run_report(study)
    assert "had 6 trials, fewer than 5 per" in out
    assert "extend=true" not in out


def test_killed_study_is_reported_from_its_finished_repeats(study, edit_record, run_report):
    edit_record({"finished": False})
    edit_summary(study / "sgd-r2-repeat-001-seed2001", status="running")
    edit_summary(study / "sgd-r2-repeat-001-seed2002", status="running")
    out, table = run_report(study)
    assert (table["n"]["sgd"], table["n"]["adam"]) == (2, 3)
    assert "The study study is not finished: 10 of 12 repeats have ended" in out
    assert "Unequal numbers of replicates, from 2 to 3" in out
    assert "2 unfinished (sgd)" in out
    edit_summary(study / "sgd-r2-repeat-001-seed2001", status="completed")
    assert (
        "Unequal numbers of seeds per replicate: a replicate is unfinished" in run_report(study)[0]
    )


def test_study_killed_while_tuning_is_reported_from_trials(study, edit_record, run_report):
    """A trial paused at a rung is not selected over a completed one, whatever its value."""
    edit_record({"finished": False})
    for run in [*study.glob("*-repeat-*"), *study.glob("*-untuned-*"), *study.glob("*-r[12]-*")]:
        if run.exists():
            shutil.rmtree(run)
    out, table = run_report(study)
    assert (table["num_settings"] == 3).all()
    assert table["n"].to_dict() == {"sgd": 1, "adam": 1}
    assert "0 of 12 repeats have ended; the report shows its trials" in out
    edit_summary(study / "sgd-r0-tune-000", best={"value": 0.99}, planned_steps=10)
    out, table = run_report(study)
    assert table.loc["sgd", "best_setting"] == "optimizer.lr=0.1"
    assert "before their schedule ends" not in out
    shutil.rmtree(study / "sgd-r0-tune-001")
    assert (
        "Runs that were configured to stop before their schedule ends: sgd." in run_report(study)[0]
    )


def test_study_without_trials_or_with_damaged_record_is_rejected(study, tmp_path, report_error):
    not_started = tmp_path / "not_started"
    write_run(not_started / "preflight" / "sgd-0")
    (not_started / "study.json").write_text("{}")
    assert (
        report_error(not_started) == f"error: {not_started}: the study has not started tuning yet\n"
    )
    (study / "study.json").write_text("{")
    assert report_error(study).startswith(f"error: {study / 'study.json'} is damaged: ")


def test_study_with_only_untuned_runs_is_rejected(study, report_error):
    for run_dir in study.glob("*-repeat-*"):
        edit_summary(run_dir, status="failed", error="OSError: no space left")
    assert report_error(study) == (
        "error: no run has finished (12 failed); the first error: OSError: no space left\n"
    )


def test_candidates_of_several_studies_are_prefixed(study, tmp_path, monkeypatch, run_report):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(study, tmp_path / "again")
    table = run_report("study", "again")[1]
    tuned = table.index[~table.index.str.endswith("untuned")]
    assert set(tuned) == {"study/sgd", "study/adam", "again/sgd", "again/adam"}
    assert (table["n"] == 3).all()


def test_divergence_is_counted_separately_for_trials_and_repeats(study, run_report):
    edit_summary(study / "sgd-r0-tune-000", status="diverged")
    edit_summary(study / "sgd-r0-repeat-001-seed2", status="diverged", best=None)
    out, table = run_report(study)
    assert "1 diverged in tuning (sgd), 1 diverged (sgd): these have no value" in out
    assert table.loc["sgd", "num_reported_diverged"] == 1


def test_tuning_figure_marks_pruned_trials(study, edit_record):
    """With two tuned numbers, no line joins the best trials, so the note must not mention one."""
    edit_record(
        edit_run=lambda run: run["params"].update({"optimizer.momentum": run.get("trial", 0) / 10})
    )
    comparison = compare(read_sweep([study]).runs)
    palette, figures = palette_of(comparison), figures_of(comparison)["tuning"]
    html = "".join(inline_svg(figure, palette) + figure.note for figure in figures)
    assert html.count("hollow: pruned, at the value that it had reached;") == 2
    assert html.count("<title>sgd, optimizer.lr=") == 6, "hover text of three trials in two figures"
    assert html.count(", pruned: ") == 4
    assert "join the best" not in html


@pytest.mark.parametrize("value", ["[0.9, 0.95]", '{"a": 1}'])
def test_settings_can_be_lists_or_mappings(study, edit_record, run_report, value):
    edit_record(edit_run=lambda run: run["params"].update({"optimizer.betas": json.loads(value)}))
    table = run_report(study)[1]
    assert table.loc["sgd", "best_setting"] == f"optimizer.lr=0.1 to 0.3, optimizer.betas={value}"
