"""The monitored metric: whether lower or higher is better, and errors if it is not measured."""

import math

import pytest
import torch

from core.errors import ConfigError
from core.monitor import monitor_of, worst_value
from core.run_directory import read_config
from objectives.classification import Classification
from tests.trainer.interrupting import SHORT, assert_same_run, checkpoint_of, events, summary
from trainer.trainer import Trainer

TINY_TEXT = ("model=transformer", "model.width=16", "model.num_layers=1", "debug=fast")


@pytest.mark.parametrize(
    ("overrides", "mode"),
    [
        ((), "max"),
        (("monitor=val/loss",), "min"),
        (("monitor=val/something",), "max"),
        (("monitor=val/something", "monitor_mode=min"), "min"),
        (("monitor=val/their_loss",), "min"),
        (("model=transformer",), "min"),
        (("model=transformer", "monitor=val/perplexity"), "min"),
        (("model=lstm", "monitor=val/bits_per_byte"), "min"),
        (("model=dcgan",), "min"),
        (("model=unet",), "min"),
    ],
)
def test_monitor_mode(composed, overrides, mode):
    config = composed(*overrides)
    assert monitor_of(config).mode == mode
    assert worst_value(config) == (math.inf if mode == "min" else -math.inf)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("monitor=val/loss", "monitor_mode=max"), "a lower val/loss is better: leave"),
        (("monitor_mode=min",), "a higher val/accuracy is better: leave"),
        (("model=transformer", "monitor=val/perplexity", "monitor_mode=max"), "a lower val/perp"),
    ],
)
def test_contradictory_monitor_mode_is_rejected(train, tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        train(*overrides, run_dir=tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


@pytest.fixture
def fixed_val_losses(monkeypatch):
    """Replace the validation losses by 0.5, 0.25, 0.75, 0.9."""
    measure, values = Trainer.measure, iter((0.5, 0.25, 0.75, 0.9))

    def measure_and_replace(self, split, **settings):
        metrics, samples = measure(self, split, **settings)
        return (metrics | {"val/loss": next(values)} if split == "val" else metrics), samples

    monkeypatch.setattr(Trainer, "measure", measure_and_replace)


def test_lowest_val_loss_is_best(train, few_digits, fixed_val_losses):
    """The best checkpoint, the summary and early stopping agree; the config stores the mode."""
    overrides = (*SHORT, "monitor=val/loss", "trainer.eval_every_steps=2",
                 "trainer.early_stopping_patience=2")  # fmt: skip
    run_dir = train(*overrides)
    assert summary(run_dir)["best"] == {"value": 0.25, "step": 4, "epoch": 0.8}
    assert checkpoint_of(run_dir, "best")["counters"]["step"] == 4
    assert summary(run_dir)["stop_reason"] == "val/loss did not improve in 2 evaluations"
    assert summary(run_dir)["monitor_mode"] == "min"
    assert read_config(run_dir / "config.yaml")["monitor_mode"] == "min"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("debug=fast", "monitor=val/acc"),
         "monitor=val/acc is not measured; choose one of val/loss, val/accuracy"),
        ((*TINY_TEXT, "monitor=val/accuracy"),
         "is not measured; choose one of val/loss, val/bytes_per_token, val/perplexity, "),
        (("debug=fast", "trainer.stop_at_target=true"),
         r"stop_at_target=true needs a trainer\.target"),
        (("debug=fast", "trainer.target=98"), r"trainer\.target=98 should be in \[0, 1\]: val/acc"),
    ],
)  # fmt: skip
def test_unusable_monitor_or_target_is_rejected(train, few_digits, tmp_path, overrides, message):
    run_dir = tmp_path / "run"
    with pytest.raises(ConfigError, match=message):
        train(*overrides, run_dir=run_dir)
    assert events(run_dir) == []


def test_trial_evaluation_does_not_change_training(train, few_digits, monkeypatch):
    """If an objective declares no metrics, a batch is evaluated first, which may draw numbers."""
    overrides = (*SHORT, "model.dropout=0.2")
    expected = train(*overrides)
    evaluate, calls = Classification.evaluate, 0

    def evaluate_and_draw(self, model, batch):
        nonlocal calls
        calls += 1
        if calls == 1:
            torch.rand(3)
        return evaluate(self, model, batch)

    monkeypatch.setattr(Classification, "metric_modes", {})
    monkeypatch.setattr(Classification, "evaluate", evaluate_and_draw)
    run_dir = train(*overrides)
    assert_same_run(expected, run_dir)
    log = (run_dir / "train.log").read_text()
    assert "assuming that a higher val/accuracy is better; set monitor_mode if it is not" in log


def test_run_without_validation_split(train, few_digits, monkeypatch):
    """The log says so, and settings that need an evaluation are rejected."""
    from trainer import build

    build_data = build.build_data

    def without_val(*arguments):
        data = build_data(*arguments)
        del data.splits["val"]
        return data

    monkeypatch.setattr(build, "build_data", without_val)
    run_dir = train(*SHORT)
    assert (
        "no validation split: val/accuracy is not measured" in (run_dir / "train.log").read_text()
    )
    assert "test/accuracy" in summary(run_dir)
    for setting in ("target=0.5", "early_stopping_patience=3"):
        with pytest.raises(ConfigError, match=f"trainer.{setting} needs a validation split"):
            train(*SHORT, f"trainer.{setting}")
