"""Options of the training loop, compared with the result that each should equal."""

import time
from pathlib import Path
from statistics import mean

import pytest
import torch
import yaml

from core.errors import ConfigError
from models.lightcnn import LightCNN
from tests.trainer.interrupting import checkpoint_of, events, summary
from trainer import metrics
from trainer.trainer import Trainer

pytestmark = pytest.mark.usefixtures("few_digits")
FP32 = "trainer.precision=fp32"
SHORT = ("trainer.limit_train_steps=6", "trainer.eval_every_steps=6", "data.batch_size=40", FP32)
PLAIN_MODEL = "model=customcnn"  # no batch norm, so micro-batches give the same gradient
PLAIN_SGD = ("optim=sgd_cosine", "optimizer.momentum=0", "optimizer.nesterov=false",
             "optimizer.weight_decay=0", "scheduler=constant")  # fmt: skip


def weights(run_dir: Path, key: str = "model") -> dict[str, torch.Tensor]:
    return checkpoint_of(run_dir)[key]


def distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    return max((first[name] - second[name]).abs().max().item() for name in first)


def test_seed_determines_the_run(train):
    first, same, other = (train(*SHORT, f"seed={seed}") for seed in (1, 1, 2))
    assert distance(weights(first), weights(same)) == 0
    for name in ("initial_weights_hash", "data_order_hash"):
        assert summary(first)[name] == summary(same)[name] != summary(other)[name]


def test_accumulation_equals_full_batch(train):
    # a small learning rate, since ties in max-pooling amplify rounding errors
    base = (PLAIN_MODEL, "optim=sgd_cosine", "optimizer.lr=0.01", *SHORT)
    full, accumulated = train(*base), train(*base, "trainer.accumulate_steps=4")
    assert distance(weights(full), weights(accumulated)) < 1e-5
    assert summary(full)["data_order_hash"] == summary(accumulated)["data_order_hash"]


def test_clipping_limits_the_update(train):
    """One SGD step without momentum changes the weights by at most lr times the limit."""
    one = (PLAIN_MODEL, *PLAIN_SGD, "optimizer.lr=1.0", *SHORT, "trainer.limit_train_steps=1")
    start = weights(train(*one, "optimizer.lr=0.0"))
    by_norm, by_value, unclipped = (
        {name: value - start[name] for name, value in weights(train(*one, *clip)).items()}
        for clip in (("trainer.clip_grad_norm=0.01",), ("trainer.clip_grad_value=0.001",), ())
    )
    norms = [
        sum(v.square().sum() for v in change.values()) ** 0.5 for change in (by_norm, unclipped)
    ]
    assert norms[0] == pytest.approx(0.01, rel=1e-3)
    assert norms[1] > 0.1
    assert max(v.abs().max() for v in by_value.values()) == pytest.approx(0.001, rel=1e-2)


def test_ema_weights_are_evaluated_and_do_not_affect_training(train):
    run = train(*SHORT, "trainer.ema_decay=0.9")
    plain = train(*SHORT)
    assert distance(weights(run), weights(plain)) == 0  # averaging does not affect training
    assert distance(weights(run), weights(run, "ema")) > 0
    assert summary(run)["val/loss"] != summary(plain)["val/loss"]


def test_cosine_schedule_ends_at_max_steps(train):
    run = train("trainer.max_steps=7", "trainer.log_every_steps=1", "data.batch_size=40", FP32)
    rates = [event["optim/lr"] for event in events(run) if "optim/lr" in event]
    assert summary(run)["steps"] == len(rates) == 7
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] < 0.1 * 0.1  # the cosine ends with the run
    assert rates == sorted(rates, reverse=True)
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == "fp32"


def test_train_losses_are_means_over_logging_windows(train):
    """Evaluations and the ends of epochs and of training do not shift these windows."""
    limit = (*SHORT, "trainer.limit_train_steps=10", "trainer.eval_every_steps=4")
    each = [e["train/loss"] for e in events(train(*limit, "trainer.log_every_steps=1"))
            if "train/loss" in e]  # fmt: skip
    assert len(each) == 10
    found = events(train(*limit, "trainer.log_every_steps=3"))
    points = {e["step"]: e["train/loss"] for e in found if "train/loss" in e}
    assert points == pytest.approx(
        {1: each[0], 3: mean(each[:3]), 6: mean(each[3:6]), 9: mean(each[6:9])}
    )
    since_eval = {e["step"]: e["train/loss_since_eval"] for e in found if "val/loss" in e}
    assert since_eval == pytest.approx({4: mean(each[:4]), 8: mean(each[4:8]), 10: mean(each[8:])})


@pytest.mark.parametrize("clip", [(), ("trainer.clip_grad_norm=0.1",)])
def test_logged_norms_match_the_updates(train, clip):
    """Without momentum and weight decay, the update is lr times the (clipped) gradient."""
    run = train(*PLAIN_SGD, "optimizer.lr=0.5", *SHORT, *clip, "trainer.log_every_steps=3")
    logged = [event for event in events(run) if "train/grad_norm" in event]
    assert [event["step"] for event in logged] == [1, 3, 6]
    for event in logged:
        norm = min(event["train/grad_norm"], 0.1) if clip else event["train/grad_norm"]
        assert event["train/grad_norm"] > 0.1
        assert event["optim/update_norm"] == pytest.approx(0.5 * norm, rel=1e-3)
    names = dict(LightCNN(1, 10, (28, 28)).named_parameters())
    squares = [w.square().sum() for name, w in weights(run).items() if name in names]
    assert logged[-1]["optim/weight_norm"] == pytest.approx(float(sum(squares)) ** 0.5)


def test_train_time_includes_work_queued_on_the_gpu(train, monkeypatch):
    """Kernels still queued when an evaluation begins belong to training."""
    queued = []

    def synchronize(device):
        while queued:
            time.sleep(queued.pop())

    def step_and_queue(trainer, update):
        train_step(trainer, update)
        queued.append(0.1)

    train_step = Trainer.train_step
    monkeypatch.setattr(metrics, "synchronize", synchronize)
    monkeypatch.setattr(Trainer, "train_step", step_and_queue)
    run = train(*SHORT, "trainer.target=0.0")
    assert summary(run)["train_seconds"] > 0.6
    assert summary(run)["target"]["seconds"] > 0.6
    assert summary(run)["step_ms"] > 100


def test_early_stopping_after_patience_is_exceeded(train):
    run = train(PLAIN_MODEL, *SHORT, "optimizer.lr=0.0", "trainer.limit_train_steps=null",
                "trainer.eval_every_steps=2", "trainer.early_stopping_patience=3")  # fmt: skip
    assert summary(run)["status"] == "stopped"
    assert summary(run)["steps"] == 8  # the first is the best, then three without improvement
    assert "val/accuracy did not improve" in summary(run)["stop_reason"]


def test_run_stops_at_target_and_records_its_time(train):
    run = train(*SHORT, "trainer.limit_train_steps=null", "trainer.eval_every_steps=20",
                "trainer.target=0.3", "trainer.stop_at_target=true")  # fmt: skip
    target = summary(run)["target"]
    assert target["value"] >= 0.3
    assert target["step"] == summary(run)["steps"]
    assert 0 < target["seconds"] <= summary(run)["train_seconds"] + 1e-3


@pytest.mark.parametrize(
    "options",
    [
        ("objective.label_smoothing=0.1", "trainer.channels_last=false"),
        ("objective.mixup_alpha=0.2", "objective.cutmix_alpha=1.0"),
        ("trainer.deterministic=true",),
        ("optim=sgd_cosine", "trainer.ema_decay=0.9"),
        pytest.param(("trainer.precision=bf16",), marks=pytest.mark.slow),  # emulated on many CPUs
    ],
    ids=lambda options: options[0],
)
def test_run_learns_with_option(train, options):
    run = train(*options, "data.batch_size=20", "trainer.max_steps=100",
                "trainer.eval_every_steps=100")  # fmt: skip
    assert summary(run)["val/accuracy"] > 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.batch_size=63 trainer.accumulate_steps=2", r"data\.batch_size=63"),
        ("data.batch_size=4000", r"data\.batch_size=4000 .* 210 training samples"),
        ("model.num_classes=7", r"model\.num_classes and data=mnist5k do not fit"),
        ("model.in_channels=3", r"model and data=mnist5k do not fit"),
        ("objective.label_smoothing=1.5", r"objective\.label_smoothing=1\.5"),
        ("objective.mixup_alpha=-1", r"objective\.mixup_alpha=-1 should be"),
        ("objective.test_time_views=3", r"test_time_views=3 should be 1, 2, 6 or None"),
        (
            "model=mlp data=breast_cancer objective=classification objective.test_time_views=2",
            "test_time_views=2 is for images",
        ),
        ("data.mean=[0.5,0.5,0.5]", r"data\.mean=.*1 channels"),
        ("trainer.accelerator=cuda", r"trainer\.accelerator=cuda"),
        ("trainer.ema_decay=1.0", r"trainer\.ema_decay=1\.0"),
        (
            "optim=schedulefree_sgd trainer.ema_decay=0.9",
            r"trainer\.ema_decay=0\.9 .*SGDScheduleFree",
        ),
        ("trainer.log_every_steps=0", r"trainer\.log_every_steps=0 should be .* 1"),
        ("seed=-1", "seed=-1"),
        (
            "model=segmentation_unet model.widths=[4,4] trainer.compile=true",
            r"trainer\.compile=True should be false: .* 1x1 convolutions",
        ),
        ("trainer.clip_grad_value=inf", r"trainer\.clip_grad_value=inf should be"),
        ("trainer.clip_grad_norm=nan", r"trainer\.clip_grad_norm=nan should be"),
        (
            "model=dcgan phases.generator.clip_grad_norm=-1",
            r"phases\.generator\.clip_grad_norm=-1 should be",
        ),
        ("monitor_mode=best", "monitor_mode=best should be .*auto.*max"),
    ],
)
def test_invalid_settings_raise_one_line(train, override, message):
    if "cuda" in override and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match=message) as caught:
        train(*SHORT, *override.split())
    assert "\n" not in str(caught.value)


def test_loss_without_gradient_raises_one_line(train, monkeypatch):
    forward = LightCNN.forward
    monkeypatch.setattr(LightCNN, "forward", lambda self, images: forward(self, images).detach())
    with pytest.raises(ConfigError, match="the loss of phase train has no gradient"):
        train(*SHORT)
