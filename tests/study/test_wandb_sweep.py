"""Export of a study as W&B sweeps."""

import pytest
import yaml

from core.composed import compose_config
from core.errors import ConfigError
from study.protocol import Protocol
from study.space import Dimension
from study.wandb_sweep import parameter, sweeps_of, write
from tests.study.fake_study import SETTINGS


def test_one_sweep_is_written_per_candidate(tmp_path, capsys):
    write("mnist_optimizers", tmp_path)
    sweeps = {file.stem: yaml.safe_load(file.read_text()) for file in tmp_path.glob("*.yaml")}
    assert len(sweeps) == 7
    adamw = sweeps["mnist_optimizers_adamw"]
    assert adamw["method"] == "random"
    assert adamw["metric"] == {"name": "val/accuracy", "goal": "maximize"}
    assert adamw["run_cap"] == 5
    assert adamw["parameters"]["optimizer.lr"] == {
        "distribution": "log_uniform_values",
        "min": 3e-4,
        "max": 0.1,
    }
    assert adamw["command"][:3] == ["${env}", "${interpreter}", "${program}"]
    assert adamw["command"][-1] == "${args_no_hyphens}"
    assert "optimizer=adamw" in adamw["command"]
    printed = capsys.readouterr()
    assert printed.out.count("wandb sweep ") == 7
    assert "replicates (settings are tuned once)" in printed.err


def test_conditional_space_becomes_one_sweep_per_branch(tmp_path):
    space = {
        "optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True},
        "scheduler": ["constant", "cosine", "warmup_cosine"],
        "scheduler.warmup_fraction": {"low": 0.0, "high": 0.2, "when": {"scheduler": "cosine"}},
    }
    candidates = {"adamw": {"overrides": ["optimizer=adamw"], "space": space}}
    protocol = Protocol.of(SETTINGS | {"candidates": candidates, "trials": 5})
    candidate = protocol.candidates["adamw"]
    sweeps = sweeps_of("mnist_optimizers", protocol, candidate, compose_config())
    for sweep in sweeps:
        varied = [f"{key}={entry['max']}" for key, entry in sweep["parameters"].items()]
        compose_config([*sweep["command"][3:-1], *varied])  # raises if a setting does not exist
    assert [list(sweep["parameters"]) for sweep in sweeps] == [
        ["optimizer.lr"],
        ["optimizer.lr", "scheduler.warmup_fraction"],
        ["optimizer.lr"],
    ]
    assert [sweep["run_cap"] for sweep in sweeps] == [1, 2, 2]
    assert sweeps[1]["name"] == "test adamw scheduler=cosine"


def test_log_scaled_integers_become_a_list_of_values():
    width = Dimension.of("model.width", {"low": 16, "high": 1024, "log": True}, "space")
    values = parameter(width, "random")["values"]
    assert values[0] == 16
    assert values[5] == 128
    assert values[-1] == 1024
    assert all(isinstance(value, int) for value in values)


def test_study_without_candidates_is_rejected(tmp_path):
    with pytest.raises(ConfigError, match="lr_range compares no candidates"):
        write("lr_range", tmp_path)
