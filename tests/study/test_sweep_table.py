"""The table and the hints that a sweep prints at its end, whatever the state of its jobs."""

import json

import pytest

from core.composed import compose_config
from study.sweep import Plan, Sweep

GOOD = {
    "status": "completed",
    "overrides": ["seed=0"],
    "monitor": "val/accuracy",
    "best": {"value": 0.5},
    "test/accuracy": 0.25,
    "train_seconds": 1.5,
}


@pytest.fixture
def end_sweep(tmp_path, monkeypatch, capsys):
    """Return a function that ends a sweep: ``end_sweep("seed=0,1", {"0": GOOD})``.

    It returns whether no job failed, and what was printed.
    """

    def end(sweep, jobs, study=None):
        for name, content in jobs.items():
            (tmp_path / name).mkdir()
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / name / "summary.json").write_text(text)
        overrides = [f"hydra.sweep.dir={tmp_path}"] + ([f"study={study}"] if study else [])
        cfg = compose_config(overrides, with_hydra=True)
        cfg.hydra.overrides.task = sweep.split()
        cfg.hydra.overrides.hydra = ["hydra/launcher=joblib", "hydra.mode=MULTIRUN"]
        cfg.hydra.mode = "MULTIRUN"
        monkeypatch.setattr(Sweep, "plan", Plan.of(cfg))
        monkeypatch.setenv("COLUMNS", "200")
        return Sweep.finish(), capsys.readouterr().out

    return end


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", "{[", "\0", *(json.dumps(GOOD | {key: "?"}) for key in ("best", "train_seconds"))],
)
def test_job_with_damaged_or_missing_summary_counts_as_failed(end_sweep, tmp_path, content):
    (tmp_path / "2" / ".hydra").mkdir(parents=True)
    succeeded, printed = end_sweep("seed=0,1,2", {"0": GOOD, "1": content})
    assert not succeeded
    for part in ("50.00%", "25.00%", "1.5", "damaged", "no summary.json"):
        assert part in printed


def test_interrupted_sweep_lists_jobs_not_started(end_sweep, tmp_path):
    """It also prints the command that runs them."""
    interrupted = GOOD | {"status": "interrupted", "error": "Interrupted: interrupted by SIGINT"}
    jobs = {"0": GOOD, "1": interrupted | {"overrides": ["seed=1"]}}
    succeeded, printed = end_sweep("seed=0,1 optim=sgd_cosine,'adam_constant' resume=auto", jobs)
    assert not succeeded
    assert "interrupted by SIGINT " in printed
    assert (
        "not started      2 of 4: 2 seed=1 optim=sgd_cosine; 3 seed=1 optim='adam_constant'\n"
        "continue with    python train.py -m seed=0,1 \"optim=sgd_cosine,'adam_constant'\""
    ) in printed
    assert f" hydra/launcher=joblib hydra.sweep.dir={tmp_path} resume=auto\n" in printed
    assert "Mean over seeds" not in printed


def test_killed_job_is_reported(end_sweep):
    """A killed job leaves the status ``running`` in its summary."""
    _, printed = end_sweep("seed=0,1", {"0": GOOD, "1": GOOD | {"status": "running"}})
    assert "killed" in printed
    assert "running" not in printed
    assert "continue with " in printed


def test_finished_sweep_prints_means_over_seeds(end_sweep, tmp_path):
    jobs = {
        str(number): GOOD
        | {
            "overrides": [f"optim={optim}", f"seed={seed}"],
            "best": {"value": value},
            "status": "failed" if value is None else "completed",
        }
        for number, (optim, seed, value) in enumerate(
            [("sgd", 0, 0.5), ("sgd", 1, 0.6), ("adam", 0, 0.7), ("adam", 1, 0.7)]
        )
    }
    succeeded, printed = end_sweep("optim=sgd,adam seed=0,1", jobs)
    assert succeeded
    assert "│ optim=sgd  │ 2    │ 55.00% ± 7.07% │" in printed
    assert "│ optim=adam │ 2    │ 70.00% ± 0.00% │" in printed
    assert printed.endswith(f"compare          python report.py {tmp_path}\n")
    assert "continue with" not in printed


def test_command_that_continues_a_study_has_no_resume(end_sweep, tmp_path):
    (tmp_path / "study.json").write_text(json.dumps({"finished": False}))
    _, printed = end_sweep("study=sgd_or_adamw", {"sgd-r0-tune-000": GOOD}, study="sgd_or_adamw")
    assert printed.endswith(
        "continue with    python train.py -m study=sgd_or_adamw hydra/launcher=joblib "
        f"hydra.sweep.dir={tmp_path}\n"
    )
