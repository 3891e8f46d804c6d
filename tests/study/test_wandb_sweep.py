"""W&B's description of a study's sweeps."""

import yaml

from study.wandb_sweep import write


def test_one_sweep_for_each_candidate(tmp_path, capsys):
    write("mnist_optimizers", tmp_path)
    sweeps = {file.stem: yaml.safe_load(file.read_text()) for file in tmp_path.glob("*.yaml")}
    assert len(sweeps) == 7
    adamw = sweeps["mnist_optimizers_adamw"]
    assert adamw["method"] == "random"
    assert adamw["metric"] == {"name": "val/accuracy", "goal": "maximize"}
    assert adamw["run_cap"] == 16
    assert adamw["parameters"]["optimizer.lr"] == {
        "distribution": "log_uniform_values",
        "min": 1e-4,
        "max": 0.1,
    }
    assert adamw["command"][:3] == ["${env}", "${interpreter}", "${program}"]
    assert adamw["command"][-1] == "${args_no_hyphens}"
    assert "optimizer=adamw" in adamw["command"]
    assert capsys.readouterr().out.count("wandb sweep ") == 7
