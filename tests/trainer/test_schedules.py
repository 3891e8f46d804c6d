"""Schedules that depend on evaluations, or change momentum and weight decay."""

from unittest.mock import patch

import pytest

from core.errors import ConfigError
from tests.trainer.interrupting import checkpoint_of, events
from trainer.trainer import Trainer

SIX_STEPS = ("trainer.max_steps=6", "trainer.eval_every_steps=1", "trainer.log_every_steps=1")
SCHEDULES = (
    "scheduler=plateau",
    "scheduler.patience=0",
    "scheduler.threshold=10.0",  # no evaluation is an improvement
    "scheduler.factor=0.5",
    "optimizer=adamw",
    "scheduler@momentum_schedule=constant",
    "+momentum_schedule.warmup_fraction=1.0",
    "momentum_schedule.warmup_steps=null",
    "scheduler@weight_decay_schedule=cosine",
    "weight_decay_schedule.eta_min=0.1",
)


@pytest.mark.usefixtures("few_digits")
def test_schedules_change_lr_momentum_and_weight_decay(train):
    keys = ("optim/lr", "optim/momentum", "optim/weight_decay")
    logged = [event for event in events(train(*SIX_STEPS, *SCHEDULES)) if "optim/lr" in event]
    lrs, momentums, decays = ([event[key] for event in logged] for key in keys)
    assert lrs == pytest.approx([0.003, 0.003, *(0.003 * 0.5**n for n in range(1, 5))])
    assert momentums == sorted(set(momentums))
    assert decays == sorted(set(decays))


@pytest.mark.usefixtures("few_digits")
def test_limit_between_evaluations_does_not_affect_plateau(train):
    """The final evaluation of a limited run must not count for the learning rate or patience."""
    settings = (*SIX_STEPS[:1], *SCHEDULES[:4], "trainer.eval_every_steps=2", SIX_STEPS[2])
    settings += ("trainer.early_stopping_patience=2",)
    unlimited = train(*settings)
    resumed = train(*settings, "trainer.limit_train_steps=3")
    train(*settings, "resume=auto", run_dir=resumed)
    rates, others = (
        [event["optim/lr"] for event in events(run) if "optim/lr" in event]
        for run in (unlimited, resumed)
    )
    assert rates == others
    assert len(set(rates)) > 1
    expected, other = (checkpoint_of(run)["counters"] for run in (unlimited, resumed))
    for counter in ("step", "stop_reason", "evaluations"):
        assert other[counter] == expected[counter]


def test_plateau_requires_a_validation_split(train):
    with pytest.raises(ConfigError, match="scheduler=plateau needs a validation split"):
        train("debug=fast", "model=transformer", "data.val_fraction=0", "scheduler=plateau")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("scheduler=wsd", "scheduler.eta_min=-0.1"),
            r"^scheduler changes 0\.003 to -0.* 0 or more",
        ),
        (("scheduler=warm_restarts", "scheduler.eta_min=-1"), "scheduler changes"),
        (
            ("scheduler@momentum_schedule=cosine", "momentum_schedule.eta_min=1.5"),
            r"^momentum_schedule changes 0\.9 to 1\..* below 1",
        ),
    ],
)
def test_values_out_of_range_are_rejected_before_training(train, settings, message):
    with pytest.raises(ConfigError, match=message), patch.object(Trainer, "fit", pytest.fail):
        train("optimizer=adamw", "trainer.max_steps=40", *settings)
