"""The monitored metric: which way it is better, and whether it is measured at all."""

import math

import pytest

from core.errors import ConfigError
from core.monitor import monitor_of, worst_value
from core.run_directory import read_config
from tests.trainer.interrupting import SHORT, checkpoint_of, events, summary

TINY_TEXT = ("model=transformer", "debug=fast")


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
    from trainer.trainer import Trainer

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
    assert summary(run_dir)["stop_reason"] == "no better val/loss in 2 evaluations"
    assert summary(run_dir)["monitor_mode"] == "min"
    assert read_config(run_dir / "config.yaml")["monitor_mode"] == "min"


def test_finished_and_failed_jobs_of_a_sweep(command, data_root, tmp_path):
    """The value that is returned to the sweeper, at first and when there is nothing left to do."""
    common = ("train.py", "debug=fast", "wandb.mode=disabled", f"data.root={data_root}",
              "monitor=val/loss", "resume=auto", "hydra.run.dir=run")  # fmt: skip
    assert command(*common).returncode == 0
    before = (tmp_path / "run" / "summary.json").stat().st_mtime_ns
    again = command(*common)
    assert again.returncode == 0
    assert again.stdout.splitlines()[1] == "this run has finished already: nothing to do"
    assert (tmp_path / "run" / "summary.json").stat().st_mtime_ns == before
    assert '"monitor_mode": "min"' in (tmp_path / "run" / "summary.json").read_text()


@pytest.mark.parametrize(
    ("overrides", "there_are"),
    [
        (("debug=fast", "monitor=val/acc"), "val/loss, val/accuracy"),
        ((*TINY_TEXT, "monitor=val/accuracy"), "val/loss, val/bytes_per_token, val/perplexity, "),
    ],
)
def test_unmeasured(train, few_digits, tmp_path, overrides, there_are):
    run_dir = tmp_path / "run"
    with pytest.raises(
        ConfigError, match=f"{overrides[-1]} is not measured; there are {there_are}"
    ):
        train(*overrides, run_dir=run_dir)
    assert events(run_dir) == []


def test_which_way_is_better_is_said_where_the_objective_does_not(
    train, few_digits, monkeypatch, capsys
):
    from objectives.classification import Classification

    monkeypatch.setattr(Classification, "metric_modes", {"loss": "min"})
    overrides = ("debug=fast", "monitor=val/accuracy")
    train(*overrides)
    assert "a higher val/accuracy is taken for better (monitor_mode)" in capsys.readouterr().out
    train(*overrides, "monitor_mode=min")
    assert "a lower val/accuracy is taken for better (monitor_mode)" in capsys.readouterr().out


def test_no_target_to_stop_at(train, few_digits):
    with pytest.raises(ConfigError, match=r"stop_at_target=true needs a trainer\.target"):
        train("debug=fast", "trainer.stop_at_target=true")


def test_a_trial_evaluation_changes_nothing(train, few_digits, monkeypatch):
    """Of an objective that does not declare what it measures; it may draw random numbers."""
    import torch

    from objectives.classification import Classification
    from tests.trainer.interrupting import assert_same_run

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
    assert_same_run(whole, train(*overrides))


@pytest.mark.parametrize("overrides", [(), ("model=transformer",), ("model=lstm",)])
def test_what_is_declared_is_measured(train, composed, overrides):
    from core.monitor import objective_class

    run_dir = train("debug=fast", *overrides)
    target = composed(*overrides)["objective"]["_target_"]
    names = {f"val/{name}" for name in objective_class(target).metric_modes}
    assert names <= summary(run_dir).keys()


def test_no_validation_split(train, few_digits, monkeypatch):
    """It is said; what would wait for an evaluation that never comes is refused."""
    from data import build

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
