"""Studies by the real command, and every file of ``conf/study/``."""

import json

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from core.composed import CONF, compose_config
from core.schema import check_settings
from study.protocol import Protocol
from study.sweeper import check_arguments

FILES = [f.stem for f in sorted((CONF / "study").glob("*.yaml")) if not f.stem.startswith("_")]
STUDY = (
    "study=mnist_optimizers",
    "wandb.mode=disabled",
    "trainer.max_steps=8",
    "trainer.eval_every_steps=2",
    "trainer.limit_eval_steps=1",
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
)
DIVERGING = (
    *STUDY,
    "trainer.clip_grad_norm=null",
    "~hydra.sweeper.candidates.adamw",
    "+hydra.sweeper.candidates.wild="
    "{overrides: ['optimizer=sgd'], space: {optimizer.lr: [0.1, 1e30]}}",
)


def test_studies_compose_with_every_candidate():
    """What tunes an optimizer alone is composed with one of the studies that have it."""
    seen = []
    for name in FILES:
        cfg = compose_config([f"study={name}"], with_hydra=True)
        if "candidates" not in cfg.hydra.sweeper:
            continue  # a single run
        assert cfg.hydra.mode.name == cfg.hydra.sweeper.mode == "MULTIRUN", "without -m too"
        protocol = Protocol.of(instantiate(cfg.hydra.sweeper).settings)
        check_arguments((f"study={name}",), protocol)
        for candidate in protocol.candidates.values():
            assert candidate.source, "a search space says where it comes from"
            space = candidate.search_space
            settings = space.at(space.design("sobol", 1, 0)[0])
            overrides = [*candidate.overrides, *(f"{k}={v}" for k, v in settings.items())]
            if overrides in seen:
                continue
            run = compose_config([f"study={name}", *overrides])
            check_settings(OmegaConf.to_container(run, resolve=True, throw_on_missing=True))
            if all(override.startswith("optimizer") for override in overrides):
                seen.append(overrides)


def test_candidates_may_refer_to_their_own_settings():
    """As dcgan_optimizers does: one momentum for two networks."""
    cfg = compose_config(["study=dcgan_optimizers"], with_hydra=True)
    adam = instantiate(cfg.hydra.sweeper).settings["candidates"]["adam"]
    tuned = "phases.generator.optimizer.betas.0=0.3"
    phases = compose_config(["study=dcgan_optimizers", *adam["overrides"], tuned]).phases
    assert phases.discriminator.optimizer.betas[0] == 0.3


def test_unknown_settings_are_listed_before_anything_runs(command_here):
    done = command_here(
        "train.py",  # without -m: a study is no single run
        *STUDY,
        "~hydra.sweeper.candidates.sgd",
        "~hydra.sweeper.candidates.adamw",
        "+hydra.sweeper.candidates.first="
        "{overrides: ['optimizer=adam'], space: {optimizer.beta: [1]}}",
        "+hydra.sweeper.candidates.second={overrides: ['optimizer=adm']}",
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "these candidates do not run:\n  first (optimizer=adam optimizer.beta=1)" in done.stderr
    assert "unknown setting optimizer.beta: did you mean optimizer.betas" in done.stderr
    assert "optimizer=adm: no such option; did you mean optimizer=adam?" in done.stderr


@pytest.mark.slow
def test_study_from_the_command_line(command, tmp_path, data_root):
    arguments = (*STUDY, f"data.root={data_root}", f"hydra.sweep.dir={tmp_path / 'study'}")
    done = command("train.py", "-m", *arguments)
    assert done.returncode == 0, done.stderr
    for title in ("Forecast", "Study", "sweep directory"):
        assert title in done.stdout
    record = json.loads((tmp_path / "study" / "study.json").read_text())
    chosen = [(best["candidate"], best["replicate"]) for best in record["best"]]
    assert sorted(chosen) == [("adamw", 0), ("adamw", 1), ("sgd", 0), ("sgd", 1)]
    for entry in record["runs"]:
        summary = json.loads((tmp_path / "study" / entry["run_dir"] / "summary.json").read_text())
        assert summary["status"] == entry["status"]
        assert ("test/accuracy" in summary) == (summary["steps"] == 8)
        if entry["phase"] == "tune":  # measured exactly where the rung is, along the full schedule
            assert summary["steps"] == entry["rungs"][-1]["step"] in (2, 8)
            assert summary["horizon_steps"] == 8
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("metrics.jsonl")}
    again = command("train.py", "-m", *arguments)
    assert again.returncode == 0, again.stderr
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("metrics.jsonl")}
    audited = command("train.py", "-m", *arguments, "hydra.sweeper.halving.audit=true")
    assert audited.returncode == 0, audited.stderr
    record = json.loads((tmp_path / "study" / "study.json").read_text())
    pruned = [entry for entry in record["runs"] if entry["status"] == "pruned"]
    assert len(pruned) == 4
    assert all(entry["audited"] > 0 and entry["rungs"][-1]["step"] == 2 for entry in pruned)


@pytest.mark.slow
def test_diverged_trials_are_results_not_failures(command, tmp_path, data_root):
    arguments = (*DIVERGING, f"data.root={data_root}", f"hydra.sweep.dir={tmp_path / 'study'}")
    done = command("train.py", "-m", *arguments)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "study" / "study.json").read_text())
    statuses = [entry["status"] for entry in record["runs"] if entry["candidate"] == "wild"]
    assert sorted(statuses) == ["completed"] * 4 + ["diverged"] * 2
    chosen = [best["params"] for best in record["best"] if best["candidate"] == "wild"]
    assert chosen == [{"optimizer.lr": 0.1}] * 2
    assert command("report.py", str(tmp_path / "study")).returncode == 0


@pytest.mark.slow
def test_misfits_are_listed_in_one_message(command, tmp_path):
    done = command("train.py", "-m", *STUDY, "param_groups.decay_norms_and_biases=3")
    assert done.returncode == 1
    message = done.stderr[done.stderr.rindex("these candidates do not run") :]
    assert "sgd: " in message
    assert "adamw: " in message
    assert "Traceback" not in done.stderr
