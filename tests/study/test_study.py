"""A study from preflight to results: budgets, halving, repeats, failed and lost runs."""

import json

import pytest

from analysis.study import StudyRecord, audit
from core.errors import ConfigError
from tests.study.fake_study import (
    HALVING,
    HORIZON,
    FakeLauncher,
    accuracy,
    read_record,
    run_fake_study,
)


def test_best_settings_are_repeated_on_fresh_paired_seeds(tmp_path):
    """All candidates get the same number of trials, and the same seeds for their repeats."""
    launcher = FakeLauncher(tmp_path)
    study = run_fake_study(launcher, replicates=3, untuned=True, seed=2)
    for name in ("sgd", "adam"):
        lrs = set()
        for replicate in study.replicates:
            first_seed = 200_000 + 1_000 * replicate.number
            jobs = [
                job
                for job in launcher.jobs
                if job["hydra.sweep.subdir"].startswith(f"{name}-r{replicate.number}-")
            ]
            seeds = [(job["wandb.job_type"], int(job["seed"]) - first_seed) for job in jobs]
            evaluations = [("repeat", 1), ("untuned", 1), ("repeat", 2), ("untuned", 2)]
            assert seeds == [("tune", 0)] * 4 + evaluations
            best = replicate.best()[name]
            assert best.value == max(tuning.value for tuning in replicate.trials[name])
            repeat, untuned = jobs[4:6]
            assert float(repeat["optimizer.lr"]) == best.params["optimizer.lr"]
            assert "optimizer.lr" not in untuned
            assert "trainer.test" not in repeat
            assert (repeat["wandb.candidate"], repeat["wandb.tags"]) == (name, f"[{name}]")
            lrs |= {job["optimizer.lr"] for job in jobs[:4]}
        assert len(lrs) == 12, "each replicate samples other points"
    repeats = [name for name in launcher.names if "-r0-repeat-" in name]
    assert [name.partition("-")[0] for name in repeats] == ["sgd", "adam"] * 2, "grouped by seed"
    record = read_record(tmp_path)
    assert [(entry["candidate"], entry["replicate"]) for entry in record["best"]] == [
        (name, replicate) for replicate in range(3) for name in ("sgd", "adam")
    ]
    phases = ["tune"] * 8 + ["repeat"] * 4 + ["untuned"] * 4
    assert [entry["phase"] for entry in record["runs"]] == phases * 3
    assert record["tuning_compute"]["saved_fraction"] == 0


def lr_study(**spaces):
    """Return settings of a study that tunes only the learning rate, one space per optimizer."""
    candidates = {
        name: {"overrides": [f"optimizer={name}"], "space": {"optimizer.lr": space}}
        for name, space in spaces.items()
    }
    return {"candidates": candidates, "replicates": 3, "trials": 16}


def test_space_is_widened_once_if_the_best_lr_is_at_a_bound(tmp_path, capsys):
    """SGD is best at a rate of 0.1, twice its upper bound. All candidates are tuned again."""
    settings = lr_study(sgd={"low": 1e-3, "high": 0.05, "log": True}, adam=[1e-3, 1e-2])
    run_fake_study(FakeLauncher(tmp_path), **settings)
    record = read_record(tmp_path)
    assert record["at_bounds"] == {"sgd": {"optimizer.lr": "high"}}
    launcher = FakeLauncher(tmp_path)
    run_fake_study(launcher, extend=True, **settings)
    message = "widening spaces beyond optimizer.lr of sgd (high); all candidates are tuned again"
    assert message in capsys.readouterr().out
    tuned = [job for job in launcher.jobs if job["wandb.job_type"] == "tune"]
    for name in ("sgd", "adam"):
        assert len([job for job in tuned if job["optimizer"] == name]) == 3 * 16
    lrs = [float(job["optimizer.lr"]) for job in tuned if job["optimizer"] == "sgd"]
    assert 0.05 < max(lrs) < 0.05 * (0.05 / 1e-3) ** 0.5
    record = read_record(tmp_path)
    assert record["session"]["num_trials"] == 2 * 2 * 3 * 16
    assert record["at_bounds"] == {}
    for entry in record["best"]:
        if entry["candidate"] == "sgd":
            assert entry["trial"] >= 16
            assert 0.05 < entry["params"]["optimizer.lr"] < 0.2
    repeated = [entry for entry in record["runs"] if entry["phase"] == "repeat"]
    assert len(repeated) == 2 * 3 * 2, "repeats of earlier choices do not count"


def test_bound_is_cleared_if_widening_finds_nothing_better(tmp_path):
    def collapsing(overrides, steps):
        """Drops at the upper bound of the space."""
        return accuracy(overrides, steps) if float(overrides["optimizer.lr"]) < 0.1 else 0.1

    settings = lr_study(sgd={"low": 1e-3, "high": 0.1, "log": True})
    for extend, at_bounds in ((False, {"sgd": {"optimizer.lr": "high"}}), (True, {})):
        launcher = FakeLauncher(tmp_path, accuracy=collapsing)
        run_fake_study(launcher, extend=extend, **settings)
        record = read_record(tmp_path)
        assert record["at_bounds"] == at_bounds
    assert sum(entry["trial"] < 16 for entry in record["best"]) > 1, "chosen in the first round"


def test_halving_resumes_the_best_trials_in_their_directories(tmp_path):
    launcher = FakeLauncher(tmp_path)
    study = run_fake_study(launcher, halving=HALVING, trials=8)
    limits = {}
    for job in launcher.jobs:
        if job["hydra.sweep.subdir"].startswith("sgd-r0-tune"):
            assert job["resume"] == "auto"
            limit = int(job["trainer.limit_train_steps"])
            assert job["trainer.test"] == ("true" if limit == HORIZON else "false")
            limits.setdefault(job["hydra.sweep.subdir"], []).append(limit)
    assert sorted(limits.values()) == sorted([[10]] * 4 + [[10, 50]] * 2 + [[10, 50, HORIZON]] * 2)
    statuses = [
        json.loads((tmp_path / name / "summary.json").read_text())["status"] for name in limits
    ]
    assert sorted(statuses) == ["completed"] * 2 + ["pruned"] * 6
    trials = study.replicates[0].trials["sgd"]
    at_first_rung = sorted(trials, key=lambda t: -t.values[10])
    assert {t.number for t in at_first_rung[:4]} == {t.number for t in trials if 50 in t.values}
    record = read_record(tmp_path)
    assert record["tuning_compute"] == {
        "steps": 2 * (4 * 10 + 2 * 50 + 2 * 100),
        "steps_without_halving": 1600,
        "saved_fraction": pytest.approx(1 - 680 / 1600),
    }


def test_audit_finishes_pruned_trials_but_changes_no_choice(tmp_path):
    def misleading(overrides, steps):
        """Ranks trials at every rung in the reverse order of their final values."""
        value = accuracy(overrides, HORIZON)
        return value if steps == HORIZON else 1 - value

    study = run_fake_study(FakeLauncher(tmp_path, accuracy=misleading), halving=HALVING, trials=8)
    before = read_record(tmp_path)
    assert all(entry.get("audited") is None for entry in before["runs"])

    killed = FakeLauncher(tmp_path, accuracy=misleading, killed_after=5)
    with pytest.raises(KeyboardInterrupt):
        run_fake_study(killed, halving={**HALVING, "audit": True}, trials=8)
    resumed = FakeLauncher(tmp_path, accuracy=misleading)
    audited = run_fake_study(resumed, halving={**HALVING, "audit": True}, trials=8)
    names = killed.names + resumed.names
    pruned = [tuning.name for tuning in study.tunings if tuning.state == "pruned"]
    assert sorted(names) == sorted(pruned)
    record = read_record(tmp_path)
    for key in ("best", "tuning_compute"):
        assert record[key] == before[key]
    replicate = audited.replicates[0]
    for name, tunings in replicate.trials.items():
        assert len([t for t in tunings if t.audited is not None]) == 6
        assert max(t.audited for t in tunings if t.audited) > replicate.best()[name].value
    for name in names:
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        assert (summary["status"], summary["steps"]) == ("pruned", HORIZON)
    assert "Halving changed the selected setting" in " ".join(
        audit(StudyRecord.model_validate(record))
    )


def test_diverged_and_failed_trials_rank_last_and_are_not_rerun(tmp_path):
    def status_of(overrides):
        if overrides["hydra.sweep.subdir"].startswith("preflight/"):
            return "completed"
        if overrides["optimizer"] == "adam":
            return "failed"
        return "diverged" if float(overrides["optimizer.lr"]) > 0.05 else "completed"

    launcher = FakeLauncher(tmp_path, status_of)
    study = run_fake_study(launcher, halving=HALVING, trials=8)
    best = study.replicates[0].best()
    assert best["sgd"].params["optimizer.lr"] <= 0.05
    assert "adam" not in best
    assert launcher.names.count("adam-r0-tune-000") == 1
    assert not [name for name in launcher.names if name.startswith("adam-r0-repeat")]
    rerun = FakeLauncher(tmp_path, status_of)
    run_fake_study(rerun, halving=HALVING, trials=8)
    assert rerun.jobs == []


def test_job_of_a_crashed_process_is_retried_once(tmp_path):
    """Jobs that were lost together with it are launched again, each alone."""
    launcher = FakeLauncher(tmp_path, crashing_jobs=("sgd-r0-tune-001",))
    study = run_fake_study(launcher)
    assert launcher.names.count("sgd-r0-tune-001") == 2
    assert launcher.names.count("sgd-r0-tune-002") == 1
    summary = json.loads((tmp_path / "sgd-r0-tune-001" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert study.replicates[0].trials["sgd"][1].has_failed


def test_preflight_reports_all_failing_candidates_before_tuning(tmp_path):
    launcher = FakeLauncher(tmp_path, lambda overrides: "failed")
    with pytest.raises(ConfigError, match=r"sgd: refused\n  adam: refused"):
        run_fake_study(launcher)
    assert launcher.names == []
    run_fake_study(FakeLauncher(tmp_path))  # passes in the same directory once the candidates run


@pytest.mark.parametrize("loss", ["train/loss", "train/generator/loss"])
def test_forecast_measures_seconds_per_step(tmp_path, loss):
    """A run with several phases logs one loss per phase, under another name."""
    run_fake_study(FakeLauncher(tmp_path, loss=loss))
    costs = read_record(tmp_path)["costs"]
    assert [cost["step_seconds"] for cost in costs.values()] == pytest.approx([0.01, 0.01])


def test_results_table_keeps_long_settings_on_one_line(tmp_path, capsys):
    """Outside a terminal, lines may be longer than 80 characters."""
    key = "scheduler.a_setting_with_a_long_name"
    entry = {"overrides": ["optimizer=adam", "optimizer.lr=0.1"], "space": {key: [[0.25, 0.75]]}}
    run_fake_study(FakeLauncher(tmp_path), candidates={"a_long_name": entry})
    assert f" {key}=[0.25,0.75] " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trainer.ema_decay=0.9,0.99",), "several values"),
        (("optimizer.lr=0.1",), "chosen by the study, for candidate"),
        (("seed=3",), "seed is set by the study"),
    ],
)
def test_overrides_that_conflict_with_the_study_are_rejected(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        run_fake_study(FakeLauncher(tmp_path), *arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "trials=0 should be"),
        ({"sampler": "sobl"}, "sampler=sobl should be 'grid', "),
        ({"replicates": 0}, "replicates=0 should be"),
        ({"repeat_seeds": [1]}, "unknown setting repeat_seeds"),
        ({"extend": True, "sampler": "grid"}, "choose another sampler"),
        ({"sampler": "grid"}, "optimizer.lr: a grid needs points"),
        ({"halving": {"rungs": [0.5, 0.1], "keep": 0.5}}, "ascending"),
        ({"halving": {"rungs": [0.5], "keep": 1}}, "halving.keep=1 should be less than 1"),
        ({"halving": {"rungs": [0.5], "keep": 0.5, "audit": 1}}, "a valid boolean"),
        ({"candidates": {}}, "candidates is empty"),
        ({"candidates": "sgd"}, "candidates=sgd should be an object"),
        ({"candidates": {"a": {"spaec": {}}}}, "did you mean candidates.a.space"),
    ],
)
def test_invalid_study_settings_are_rejected(tmp_path, changes, message):
    launcher = FakeLauncher(tmp_path)
    with pytest.raises(ConfigError, match=message):
        run_fake_study(launcher, **changes)
    assert launcher.jobs == []
