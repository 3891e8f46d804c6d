"""The main job leaves the records it promises."""

import json

import pytest
import torch
import yaml

from trainer import checkpoint

SUMMARY_KEYS = {
    "status",
    "error",
    "seed",
    "overrides",
    "num_parameters",
    "steps",
    "epochs",
    "train_seconds",
    "startup_seconds",
    "samples_per_second",
    "step_ms",
    "optimizer_step_ms",
    "optimizer_state_bytes",
    "peak_memory_bytes",
    "precision",
    "device",
    "world_size",
    "best",
    "target",
    "initial_weights_hash",
    "data_order_hash",
    "git_commit",
    "git_dirty",
    "versions",
    "wandb",
}


@pytest.fixture(scope="module")
def run_dir(train_once):
    return train_once("trainer.max_epochs=2", "trainer.log_every_steps=20", "seed=3")


def test_summary(run_dir):
    summary = json.loads((run_dir / "summary.json").read_text())
    assert set(summary) >= SUMMARY_KEYS
    assert summary["status"] == "completed"
    assert summary["error"] is None
    assert (summary["seed"], summary["steps"], summary["epochs"]) == (3, 108, 2)
    assert summary["best"]["epoch"] in (1, 2)
    assert summary["best"]["value"] > 0.5
    assert summary["test/accuracy"] > 0.5
    assert summary["optimizer_state_bytes"] == 4 * summary["num_parameters"]  # one momentum each
    assert summary["peak_memory_bytes"] > 1e8
    assert summary["versions"]["torch"].startswith("2.")


def test_metrics_are_one_event_a_line(run_dir):
    events = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert all({"step"} <= set(event) for event in events)
    steps = [event["step"] for event in events]
    assert steps == sorted(steps)
    training = [event for event in events if "train/loss" in event]
    assert [event["step"] for event in training] == [1, 20, 40, 60, 80, 100]
    assert training[-1]["train/loss"] < training[0]["train/loss"]
    assert {"train/accuracy", "train/grad_norm", "seconds", "epoch"} <= set(training[0])
    assert {"optim/lr", "optim/weight_norm", "optim/update_norm"} <= set(training[0])
    validation = [event for event in events if "val/accuracy" in event]
    assert [event["step"] for event in validation] == [54, 108]
    assert [event["epoch"] for event in validation] == [1.0, 2.0]
    seconds = [event["seconds"] for event in events if "seconds" in event]
    assert seconds == sorted(seconds)


def test_config_is_the_resolved_one(run_dir):
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert config["seed"] == 3
    assert config["optimizer"]["_target_"] == "torch.optim.SGD"
    assert "${" not in (run_dir / "config.yaml").read_text()


@pytest.mark.parametrize("name", ["best", "last"])
def test_checkpoints_are_tensors_and_primitives(run_dir, name):
    content = torch.load(run_dir / "checkpoints" / f"{name}.pt", weights_only=True)
    assert set(checkpoint.KINDS) == set(content)
    assert all(isinstance(value, torch.Tensor) for value in content["model"].values())
    assert not any(key.startswith(("module.", "_orig_mod.")) for key in content["model"])


def test_test_split_was_measured_with_the_best_weights(run_dir):
    summary = json.loads((run_dir / "summary.json").read_text())
    content = torch.load(run_dir / "checkpoints" / "best.pt", weights_only=True)
    assert content["counters"]["step"] == summary["best"]["step"]


def test_confusion_matrix_and_worst_predictions(run_dir):
    matrix = json.loads((run_dir / "media" / "confusion_matrix.json").read_text())
    counts = torch.tensor(matrix["counts"])
    summary = json.loads((run_dir / "summary.json").read_text())
    assert counts.sum() == 1000
    assert counts.diag().sum().item() == round(1000 * summary["test/accuracy"])
    worst = json.loads((run_dir / "media" / "worst_predictions.json").read_text())
    losses = [row[worst["columns"].index("loss")] for row in worst["rows"]]
    assert losses == sorted(losses, reverse=True)
    assert all((run_dir / "media" / row[-1]).is_file() for row in worst["rows"])


def test_log_is_the_console(run_dir):
    log = (run_dir / "train.log").read_text()
    assert "val/accuracy" in log
    assert str(run_dir) in log.replace("\n", "")
