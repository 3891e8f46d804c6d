"""The course of a study: budgets, halving, repeats, and what becomes of accidents."""

import json

import pytest

from analysis.study import StudyRecord, audit
from core.errors import ConfigError
from tests.study.fake_study import (
    HALVING,
    HORIZON,
    FakeLauncher,
    accuracy,
    conduct_fake,
    record_of,
)


def test_replicates_tune_with_equal_budgets_and_judge_the_best_on_fresh_paired_seeds(tmp_path):
    launcher = FakeLauncher(tmp_path)
    done = conduct_fake(launcher, replicates=3, untuned=True, seed=2)
    for name in ("sgd", "adam"):
        rates = set()
        for replicate in done.replicates:
            first = 200_000 + 1_000 * replicate.number
            jobs = [
                job
                for job in launcher.jobs
                if job["hydra.sweep.subdir"].startswith(f"{name}-r{replicate.number}-")
            ]
            seeds = [(job["wandb.job_type"], int(job["seed"]) - first) for job in jobs]
            judged = [("repeat", 1), ("untuned", 1), ("repeat", 2), ("untuned", 2)]
            assert seeds == [("tune", 0)] * 4 + judged
            best = replicate.best()[name]
            assert best.value == max(tuning.value for tuning in replicate.trials[name])
            repeat, untuned = jobs[4:6]
            assert float(repeat["optimizer.lr"]) == best.params["optimizer.lr"]
            assert "optimizer.lr" not in untuned
            assert "trainer.test" not in repeat
            assert (repeat["wandb.candidate"], repeat["wandb.tags"]) == (name, f"[{name}]")
            rates |= {job["optimizer.lr"] for job in jobs[:4]}
        assert len(rates) == 12, "every sampler has points of its own"
    repeats = [name for name in launcher.names if "-r0-repeat-" in name]
    assert [name.partition("-")[0] for name in repeats] == ["sgd", "adam"] * 2, "seed by seed"
    record = record_of(tmp_path)
    assert [(entry["candidate"], entry["replicate"]) for entry in record["best"]] == [
        (name, replicate) for replicate in range(3) for name in ("sgd", "adam")
    ]
    phases = ["tune"] * 8 + ["repeat"] * 4 + ["untuned"] * 4
    assert [entry["phase"] for entry in record["runs"]] == phases * 3
    assert record["tuning_compute"]["saved_fraction"] == 0


def of_rates(**spaces):
    """Settings of a study of optimizers, each with its space of learning rates."""
    candidates = {
        name: {"overrides": [f"optimizer={name}"], "space": {"optimizer.lr": space}}
        for name, space in spaces.items()
    }
    return {"candidates": candidates, "replicates": 3, "trials": 16}


def test_a_space_with_its_best_at_a_bound_is_widened_once_and_all_tune_again(tmp_path, capsys):
    """SGD is best at a rate of 0.1, twice as high as its space goes."""
    settings = of_rates(sgd={"low": 1e-3, "high": 0.05, "log": True}, adam=[1e-3, 1e-2])
    conduct_fake(FakeLauncher(tmp_path), **settings)
    record = record_of(tmp_path)
    assert record["at_bounds"] == {"sgd": {"optimizer.lr": "high"}}
    launcher = FakeLauncher(tmp_path)
    conduct_fake(launcher, extend=True, **settings)
    said = "widening spaces beyond optimizer.lr of sgd (high); all candidates are tuned again"
    assert said in capsys.readouterr().out
    tuned = [job for job in launcher.jobs if job["wandb.job_type"] == "tune"]
    for name in ("sgd", "adam"):
        assert len([job for job in tuned if job["optimizer"] == name]) == 3 * 16
    rates = [float(job["optimizer.lr"]) for job in tuned if job["optimizer"] == "sgd"]
    assert 0.05 < max(rates) < 0.05 * (0.05 / 1e-3) ** 0.5
    record = record_of(tmp_path)
    assert record["session"]["num_trials"] == 2 * 2 * 3 * 16
    assert record["at_bounds"] == {}
    for entry in record["best"]:
        if entry["candidate"] == "sgd":
            assert entry["trial"] >= 16
            assert 0.05 < entry["params"]["optimizer.lr"] < 0.2
    repeated = [entry for entry in record["runs"] if entry["phase"] == "repeat"]
    assert len(repeated) == 2 * 3 * 2, "those of the settings chosen before are not part of it"


def test_a_bound_beyond_which_nothing_better_was_found_is_none_any_more(tmp_path):
    def falling(given, steps):
        return accuracy(given, steps) if float(given["optimizer.lr"]) < 0.1 else 0.1

    settings = of_rates(sgd={"low": 1e-3, "high": 0.1, "log": True})
    for extend, at_bounds in ((False, {"sgd": {"optimizer.lr": "high"}}), (True, {})):
        launcher = FakeLauncher(tmp_path, accuracy=falling)
        conduct_fake(launcher, extend=extend, **settings)
        record = record_of(tmp_path)
        assert record["at_bounds"] == at_bounds
    assert sum(entry["trial"] < 16 for entry in record["best"]) > 1, "chosen before"


def test_halving_continues_the_best_in_their_own_directories(tmp_path):
    launcher = FakeLauncher(tmp_path)
    done = conduct_fake(launcher, halving=HALVING, trials=8)
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
    trials = done.replicates[0].trials["sgd"]
    at_first_rung = sorted(trials, key=lambda t: -t.values[10])
    assert {t.number for t in at_first_rung[:4]} == {t.number for t in trials if 50 in t.values}
    record = record_of(tmp_path)
    assert record["tuning_compute"] == {
        "steps": 2 * (4 * 10 + 2 * 50 + 2 * 100),
        "steps_without_halving": 1600,
        "saved_fraction": pytest.approx(1 - 680 / 1600),
    }


def test_audit_runs_pruned_trials_to_the_end_and_decides_nothing(tmp_path):
    def late(given, steps):
        """The first rung misleads: what leads there is the worst in the end."""
        value = accuracy(given, HORIZON)
        return value if steps == HORIZON else 1 - value

    plain = conduct_fake(FakeLauncher(tmp_path, accuracy=late), halving=HALVING, trials=8)
    before = record_of(tmp_path)
    assert all(entry.get("audited") is None for entry in before["runs"])

    launcher = FakeLauncher(tmp_path, accuracy=late, killed_after=5)
    with pytest.raises(KeyboardInterrupt):
        conduct_fake(launcher, halving={**HALVING, "audit": True}, trials=8)
    rest = FakeLauncher(tmp_path, accuracy=late)
    audited = conduct_fake(rest, halving={**HALVING, "audit": True}, trials=8)
    names = launcher.names + rest.names
    pruned = [tuning.name for tuning in plain.tunings if tuning.state == "pruned"]
    assert sorted(names) == sorted(pruned)
    record = record_of(tmp_path)
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


def test_diverged_and_failed_trials_are_the_worst_and_not_run_on(tmp_path):
    def status_of(given):
        if given["hydra.sweep.subdir"].startswith("preflight/"):
            return "completed"
        if given["optimizer"] == "adam":
            return "failed"
        return "diverged" if float(given["optimizer.lr"]) > 0.05 else "completed"

    launcher = FakeLauncher(tmp_path, status_of)
    done = conduct_fake(launcher, halving=HALVING, trials=8)
    best = done.replicates[0].best()
    assert best["sgd"].params["optimizer.lr"] <= 0.05
    assert "adam" not in best
    assert launcher.names.count("adam-r0-tune-000") == 1
    assert not [name for name in launcher.names if name.startswith("adam-r0-repeat")]
    third = FakeLauncher(tmp_path, status_of)
    conduct_fake(third, halving=HALVING, trials=8)
    assert third.jobs == []


def test_lost_process_is_tried_once_more_and_alone(tmp_path):
    launcher = FakeLauncher(tmp_path, loses=("sgd-r0-tune-001",))
    done = conduct_fake(launcher)
    assert launcher.names.count("sgd-r0-tune-001") == 2
    assert launcher.names.count("sgd-r0-tune-002") == 1
    summary = json.loads((tmp_path / "sgd-r0-tune-001" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert done.replicates[0].trials["sgd"][1].has_failed


def test_preflight_lists_all_misfits_before_anything_is_tuned(tmp_path):
    launcher = FakeLauncher(tmp_path, lambda given: "failed")
    with pytest.raises(ConfigError, match=r"sgd: refused\n  adam: refused"):
        conduct_fake(launcher)
    assert launcher.names == []
    conduct_fake(FakeLauncher(tmp_path))  # mended


@pytest.mark.parametrize("loss", ["train/loss", "train/generator/loss"])
def test_forecast_counts_the_time_of_the_updates(tmp_path, loss):
    """Whether a run has one phase or several."""
    conduct_fake(FakeLauncher(tmp_path, loss=loss))
    costs = record_of(tmp_path)["costs"]
    assert [cost["step_seconds"] for cost in costs.values()] == pytest.approx([0.01, 0.01])


def test_table_of_results_breaks_no_words_outside_a_terminal(tmp_path, capsys):
    key = "scheduler.a_setting_with_a_long_name"
    long = {"overrides": ["optimizer=adam", "optimizer.lr=0.1"], "space": {key: [[0.25, 0.75]]}}
    conduct_fake(FakeLauncher(tmp_path), candidates={"a_long_name": long})
    assert f" {key}=[0.25,0.75] " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trainer.ema_decay=0.9,0.99",), "several values"),
        (("optimizer.lr=0.1",), "chosen by the study, for candidate"),
        (("seed=3",), "seed is set by the study"),
    ],
)
def test_command_line_may_not_contradict_the_study(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        conduct_fake(FakeLauncher(tmp_path), *arguments)


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
def test_wrong_settings_are_named(tmp_path, changes, message):
    launcher = FakeLauncher(tmp_path)
    with pytest.raises(ConfigError, match=message):
        conduct_fake(launcher, **changes)
    assert launcher.jobs == []
