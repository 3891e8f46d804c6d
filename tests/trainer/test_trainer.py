"""What the loop does beyond the plain step: each option against what it should be equal to."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from core.errors import ConfigError, Diverged

FP32 = "trainer.precision=fp32"
SHORT = ("trainer.limit_train_steps=10", "trainer.eval_every_steps=10", FP32)
PLAIN_MODEL = "model=customcnn"  # no batch norm: micro-batches do not change the mathematics


def weights(run_dir: Path, key: str = "model") -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "checkpoints" / "last.pt", weights_only=True)[key]


def summary(run_dir: Path) -> dict:
    return json.loads((run_dir / "summary.json").read_text())


def distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    return max((first[name] - second[name]).abs().max().item() for name in first)


def test_same_seed_same_run_and_other_seed_another(train):
    first, same, other = (train(*SHORT, f"seed={seed}") for seed in (1, 1, 2))
    assert distance(weights(first), weights(same)) == 0
    assert summary(first)["initial_weights_hash"] == summary(same)["initial_weights_hash"]
    assert summary(first)["data_order_hash"] == summary(same)["data_order_hash"]
    assert summary(first)["initial_weights_hash"] != summary(other)["initial_weights_hash"]
    assert summary(first)["data_order_hash"] != summary(other)["data_order_hash"]


def test_accumulation_equals_the_whole_batch(train):
    # a small rate: a large one amplifies rounding wherever max-pooling meets a tie
    base = (PLAIN_MODEL, "optim=sgd_cosine", "optimizer.lr=0.01", *SHORT)
    whole, parts = train(*base), train(*base, "trainer.accumulate_steps=4")
    assert distance(weights(whole), weights(parts)) < 1e-5
    assert summary(whole)["data_order_hash"] == summary(parts)["data_order_hash"]


def test_clipping_by_norm_bounds_the_update(train):
    """One SGD step without momentum moves the weights by at most lr times the limit."""
    one = ("optim=sgd_cosine", "optimizer.momentum=0", "optimizer.nesterov=false")
    one += ("optimizer.weight_decay=0", "scheduler=constant", "optimizer.lr=1.0", FP32)
    limit = ("trainer.limit_train_steps=1", "trainer.eval_every_steps=1")
    start = train(PLAIN_MODEL, *one, *limit, "optimizer.lr=0.0")
    clipped = train(PLAIN_MODEL, *one, *limit, "trainer.clip_grad_norm=0.01")
    free = train(PLAIN_MODEL, *one, *limit)
    moved = [
        sum((weights(run)[n] - w).square().sum() for n, w in weights(start).items()) ** 0.5
        for run in (clipped, free)
    ]
    assert moved[0] == pytest.approx(0.01, rel=1e-3)
    assert moved[1] > 0.1


def test_clipping_by_value_bounds_every_weight(train):
    one = ("optim=sgd_cosine", "optimizer.momentum=0", "optimizer.nesterov=false")
    one += ("optimizer.weight_decay=0", "scheduler=constant", "optimizer.lr=1.0", FP32)
    limit = ("trainer.limit_train_steps=1", "trainer.eval_every_steps=1")
    start = train(PLAIN_MODEL, *one, *limit, "optimizer.lr=0.0")
    clipped = train(PLAIN_MODEL, *one, *limit, "trainer.clip_grad_value=0.001")
    assert distance(weights(start), weights(clipped)) == pytest.approx(0.001, rel=1e-2)


def test_averaged_weights_lag_behind_and_are_evaluated(train):
    run = train(*SHORT, "trainer.ema_decay=0.9")
    plain = train(*SHORT)
    assert distance(weights(run), weights(plain)) == 0  # averaging does not touch the training
    assert distance(weights(run), weights(run, "ema")) > 0
    assert summary(run)["val/loss"] != summary(plain)["val/loss"]


def test_horizon_in_steps(train):
    run = train("trainer.max_steps=7", "trainer.log_every_steps=1", FP32)
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = [event["optim/lr"] for event in events if "optim/lr" in event]
    assert summary(run)["steps"] == len(rates) == 7
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] < 0.1 * 0.1  # the cosine ends with the run
    assert rates == sorted(rates, reverse=True)


def test_early_stopping(train):
    run = train(
        "optim=sgd_cosine",
        "optimizer.lr=0.0",
        "trainer.eval_every_steps=2",
        "trainer.early_stopping_patience=3",
        "model=customcnn",
    )
    assert summary(run)["status"] == "stopped"
    assert summary(run)["steps"] == 8  # the first is the best, then three without improvement
    assert "no better val/accuracy" in summary(run)["stop_reason"]


def test_time_to_target(train):
    run = train(
        "trainer.eval_every_steps=20", "trainer.target=0.5", "trainer.stop_at_target=true", FP32
    )
    target = summary(run)["target"]
    assert target["value"] >= 0.5
    assert target["step"] == summary(run)["steps"]
    assert 0 < target["seconds"] <= summary(run)["train_seconds"] + 1e-3


@pytest.mark.parametrize(
    "options",
    [
        ("objective.label_smoothing=0.1",),
        ("objective.mixup_alpha=0.2", "objective.cutmix_alpha=1.0"),
        ("trainer.precision=bf16",),
        ("trainer.channels_last=false",),
        ("trainer.deterministic=true",),
        ("optim=schedulefree_adamw", "trainer.ema_decay=0.9"),
    ],
    ids=lambda options: options[0],
)
def test_option_learns(train, options):
    run = train(*options, "trainer.limit_train_steps=100", "trainer.eval_every_steps=100")
    assert summary(run)["val/accuracy"] > 0.5


def test_half_precision_scales_the_loss(train):
    run = train("trainer.precision=fp16", "trainer.log_every_steps=1", *SHORT[:2])
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scales = [event["optim/loss_scale"] for event in events if "optim/loss_scale" in event]
    assert scales[0] == 65536
    assert summary(run)["steps"] == 10


def test_training_loss_that_is_not_finite_ends_the_run(train, tmp_path):
    folder = tmp_path / "diverged"
    with pytest.raises(Diverged, match=r"loss of phase train is (nan|inf)"):
        train("optimizer.lr=1e30", *SHORT, run_dir=folder)
    assert summary(folder)["status"] == "diverged"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.batch_size=63 trainer.accumulate_steps=2", r"data\.batch_size=63"),
        ("data.batch_size=4000", r"data\.batch_size=4000 .* 3500 training samples"),
        ("model.num_classes=7", r"model\.num_classes and data=mnist5k do not fit"),
        ("model.in_channels=3", r"model and data=mnist5k do not fit"),
        ("monitor=val/f1", r"monitor=val/f1 is not measured; there are val/loss"),
        ("objective.label_smoothing=1.5", r"objective\.label_smoothing=1\.5"),
        ("data.mean=[0.5,0.5,0.5]", r"data\.mean=.*1 channels"),
        ("trainer.accelerator=cuda", r"trainer\.accelerator=cuda"),
        ("trainer.ema_decay=1.0", r"trainer\.ema_decay=1\.0"),
        ("trainer.log_every_steps=0", r"trainer\.log_every_steps=0 should be at least 1"),
        ("seed=-1", "seed=-1"),
        ("monitor_mode=best", "monitor_mode=best should be auto, max, min"),
    ],
)
def test_misfits_are_one_line_before_any_training(train, tmp_path, override, message):
    if "cuda" in override and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    folder = tmp_path / "refused"
    limit = ("trainer.limit_train_steps=2", "trainer.eval_every_steps=2")
    with pytest.raises(ConfigError, match=message) as caught:
        train(*limit, *override.split(), run_dir=folder)
    assert "\n" not in str(caught.value)


def test_config_holds_what_ran(train):
    run = train(*SHORT)
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == "fp32"
