"""The monitored metric: which way it is better, and whether it is measured at all."""

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
def test_mode(composed, overrides, mode):
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
def test_contradiction(train, tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        train(*overrides, run_dir=tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


@pytest.fixture
def rising(monkeypatch):
    """Validation losses 0.5, 0.25, 0.75, ... in place of what is measured."""
    measure, values = Trainer.measure, iter((0.5, 0.25, 0.75, 0.9))

    def measure_and_replace(self, split, **settings):
        metrics, samples = measure(self, split, **settings)
        return (metrics | {"val/loss": next(values)} if split == "val" else metrics), samples

    monkeypatch.setattr(Trainer, "measure", measure_and_replace)


def test_lowest_loss_is_best(train, few_digits, rising):
    """In the checkpoint, the records, and early stopping; a config resumed without change too."""
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
def test_nothing_to_decide_by(train, few_digits, tmp_path, overrides, message):
    run_dir = tmp_path / "run"
    with pytest.raises(ConfigError, match=message):
        train(*overrides, run_dir=run_dir)
    assert events(run_dir) == []


def test_a_trial_evaluation_changes_nothing(train, few_digits, monkeypatch):
    """Of an objective that does not declare what it measures; it may draw random numbers."""
    overrides = (*SHORT, "model.dropout=0.2")
    whole = train(*overrides)
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
    assert_same_run(whole, run_dir)
    log = (run_dir / "train.log").read_text()
    assert "assuming that a higher val/accuracy is better; set monitor_mode if it is not" in log


def test_no_validation_split(train, few_digits, monkeypatch):
    """It is said; what would wait for an evaluation that never comes is refused."""
    from trainer import build

    make = build.build_data

    def without_val(*arguments):
        data = make(*arguments)
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
