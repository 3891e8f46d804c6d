"""The records of a finished run are complete and consistent."""

import json

import pytest
import torch
import yaml

from tests.trainer.interrupting import checkpoint_of, events, summary
from trainer.checkpoint import files as checkpoint

REQUIRED_KEYS = {  # in addition to those that the tests compare
    *("num_parameters", "train_seconds", "startup_seconds", "samples_per_second", "step_ms"),
    *("optimizer_step_ms", "precision", "device", "world_size", "target", "overrides"),
    *("initial_weights_hash", "data_order_hash", "git_commit", "git_dirty", "wandb"),
}


@pytest.fixture(scope="module")
def run_dir(train_once):
    return train_once("trainer.max_epochs=2", "trainer.log_every_steps=20", "seed=3")


def test_summary_is_complete(run_dir):
    found = summary(run_dir)
    assert found.keys() >= REQUIRED_KEYS
    assert (found["status"], found["error"]) == ("completed", None)
    assert (found["seed"], found["steps"], found["epochs"]) == (3, 108, 2)
    assert found["best"]["epoch"] in (1, 2)
    assert found["best"]["value"] > 0.5
    assert found["test/accuracy"] > 0.5
    assert (
        found["optimizer_state_bytes"] == 4 * found["num_parameters"]
    )  # one fp32 momentum buffer per parameter
    assert found["peak_memory_bytes"] > 1e8
    assert found["versions"]["torch"].startswith("2.")


def test_metrics_have_one_event_per_line(run_dir):
    steps = [event["step"] for event in events(run_dir)]
    assert steps == sorted(steps)
    training = [event for event in events(run_dir) if "train/loss" in event]
    assert [event["step"] for event in training] == [1, 20, 40, 60, 80, 100]
    assert training[-1]["train/loss"] < training[0]["train/loss"]
    assert {"train/accuracy", "train/grad_norm", "epoch"} <= training[0].keys()
    assert {"optim/lr", "optim/weight_norm", "optim/update_norm"} <= training[0].keys()
    validation = [event for event in events(run_dir) if "val/accuracy" in event]
    assert [(event["step"], event["epoch"]) for event in validation] == [(54, 1.0), (108, 2.0)]


def test_config_is_resolved(run_dir):
    text = (run_dir / "config.yaml").read_text()
    config = yaml.safe_load(text)
    assert config["seed"] == 3
    assert config["optimizer"]["_target_"] == "torch.optim.SGD"
    assert "${" not in text


def test_checkpoints_have_all_parts(run_dir):
    for name in ("best", "last"):
        content = checkpoint_of(run_dir, name)
        assert content.keys() == checkpoint.PARTS.keys()
        assert all(isinstance(value, torch.Tensor) for value in content["model"].values())
    assert checkpoint_of(run_dir, "best")["counters"]["step"] == summary(run_dir)["best"]["step"]


def test_confusion_matrix_and_worst_predictions(run_dir):
    matrix = json.loads((run_dir / "media" / "confusion_matrix.json").read_text())
    counts = torch.tensor(matrix["counts"])
    assert counts.sum() == 1000
    assert counts.diag().sum().item() == round(1000 * summary(run_dir)["test/accuracy"])
    worst = json.loads((run_dir / "media" / "worst_predictions.json").read_text())
    losses = [row[worst["columns"].index("loss")] for row in worst["rows"]]
    assert losses == sorted(losses, reverse=True)
    assert all((run_dir / "media" / row[-1]).is_file() for row in worst["rows"])


def test_log_contains_console_output(run_dir):
    log = (run_dir / "train.log").read_text()
    assert "val/accuracy" in log
    assert str(run_dir) in log.replace("\n", "")
