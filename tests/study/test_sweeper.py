"""Studies started by the real command."""

import json

import pytest

STUDY = (
    "study=mnist_optimizers",
    "wandb.mode=disabled",
    "trainer.max_steps=8",
    "trainer.eval_every_steps=2",
    "trainer.limit_eval_steps=1",
    "trainer.clip_grad_norm=null",
    "hydra.sweeper.trials=2",
    "hydra.sweeper.replicates=2",
    "hydra.sweeper.seeds_per_replicate=1",
    "hydra.sweeper.untuned=false",
    "+hydra.sweeper.halving={rungs: [0.25], keep: 0.5, audit: false}",
    "~hydra.sweeper.candidates.radam",
    "~hydra.sweeper.candidates.lamb",
    "~hydra.sweeper.candidates.adafactor",
    "~hydra.sweeper.candidates.rmsprop",
    "~hydra.sweeper.candidates.adam",
    "~hydra.sweeper.candidates.adamw",
)


def test_invalid_candidates_are_listed_before_tuning(command_here):
    """The list has candidates that do not compose and candidates whose preflight run fails."""
    result = command_here(
        "train.py",  # a study is a multirun even without -m
        *STUDY,
        "~hydra.sweeper.candidates.sgd",
        "+hydra.sweeper.candidates.first="
        "{overrides: ['optimizer=adam'], space: {optimizer.beta: [1]}}",
        "+hydra.sweeper.candidates.second={overrides: ['optimizer=adm']}",
        "+hydra.sweeper.candidates.third={overrides: ['param_groups.layer_decay=x']}",
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    message = result.stderr[result.stderr.rindex("these candidates do not run:\n  first (") :]
    assert "first (optimizer=adam optimizer.beta=1)" in message
    assert "unknown setting optimizer.beta: did you mean optimizer.betas" in message
    assert "optimizer=adm: no such option; did you mean optimizer=adam?" in message
    assert "\n  third: ConfigError: param_groups.layer_decay=x should be a valid number" in message


@pytest.mark.slow
def test_study_runs_resumes_and_audits(command, tmp_path, data_root):
    wild = "{overrides: ['optimizer=sgd'], space: {optimizer.lr: [0.1, 1e30]}}"
    arguments = (
        *STUDY,
        f"+hydra.sweeper.candidates.wild={wild}",
        f"data.root={data_root}",
        f"hydra.sweep.dir={tmp_path / 'study'}",
    )
    result = command("train.py", "-m", *arguments)
    assert result.returncode == 0, result.stderr
    for title in ("Forecast", "Study", "sweep directory"):
        assert title in result.stdout
    record = json.loads((tmp_path / "study" / "study.json").read_text())
    chosen = [(best["candidate"], best["replicate"]) for best in record["best"]]
    assert sorted(chosen) == [("sgd", 0), ("sgd", 1), ("wild", 0), ("wild", 1)]
    wild = [entry for entry in record["runs"] if entry["candidate"] == "wild"]
    statuses = [entry["status"] for entry in wild]
    assert sorted(statuses) == ["completed"] * 4 + ["diverged"] * 2, "diverged is not failed"
    for best in record["best"]:
        assert best["candidate"] == "sgd" or best["params"] == {"optimizer.lr": 0.1}
    for entry in record["runs"]:
        summary = json.loads((tmp_path / "study" / entry["run_dir"] / "summary.json").read_text())
        assert summary["status"] == entry["status"]
        if entry["status"] == "diverged":
            continue
        assert ("test/accuracy" in summary) == (summary["steps"] == 8)
        if entry["phase"] == "tune":  # stops exactly at its rung, with the schedule of a full run
            assert summary["steps"] == entry["rungs"][-1]["step"] in (2, 8)
            assert summary["horizon_steps"] == 8
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("metrics.jsonl")}
    rerun = command("train.py", "-m", *arguments)
    assert rerun.returncode == 0, rerun.stderr
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("metrics.jsonl")}
    audited = command("train.py", "-m", *arguments, "hydra.sweeper.halving.audit=true")
    assert audited.returncode == 0, audited.stderr
    record = json.loads((tmp_path / "study" / "study.json").read_text())
    pruned = [entry for entry in record["runs"] if entry["status"] == "pruned"]
    assert {entry["candidate"] for entry in pruned} == {"sgd"}
    assert len(pruned) == 2
    assert all(entry["audited"] > 0 and entry["rungs"][-1]["step"] == 2 for entry in pruned)
    assert command("report.py", str(tmp_path / "study")).returncode == 0
