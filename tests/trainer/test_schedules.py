"""Schedules that see evaluations, or change other settings, in training and when it is resumed."""

import json

import pytest
import torch

from core.errors import ConfigError

SIX = ("trainer.max_steps=6", "trainer.eval_every_steps=1", "trainer.log_every_steps=1")
SCHEDULES = (
    "scheduler=plateau",
    "scheduler.patience=0",
    "scheduler.threshold=10.0",  # nothing is an improvement
    "scheduler.factor=0.5",
    "optimizer=adamw",
    "scheduler@momentum_schedule=constant",
    "+momentum_schedule.warmup_fraction=1.0",
    "momentum_schedule.warmup_steps=null",
    "scheduler@weight_decay_schedule=cosine",
    "weight_decay_schedule.eta_min=0.1",
)


def rates(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    keys = ("optim/lr", "optim/momentum", "optim/weight_decay")
    return [[line[key] for key in keys] for line in lines if "optim/lr" in line]


@pytest.mark.usefixtures("few_digits")
def test_resuming_changes_nothing(train):
    whole = train(*SIX, *SCHEDULES)
    part = train(*SIX, *SCHEDULES, "trainer.limit_train_steps=3")
    train(*SIX, *SCHEDULES, "resume=auto", run_dir=part)
    assert rates(part) == rates(whole)
    lrs, momentums, decays = zip(*rates(whole), strict=True)
    assert lrs == pytest.approx([0.003, 0.003, *(0.003 * 0.5**n for n in range(1, 5))])
    assert list(momentums) == sorted(set(momentums))
    assert list(decays) == sorted(set(decays))
    weights = [
        torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]
        for run in (part, whole)
    ]
    torch.testing.assert_close(*weights, rtol=0, atol=0)


def test_a_plateau_needs_validation(train):
    with pytest.raises(ConfigError, match="scheduler=plateau needs a validation split"):
        train("debug=fast", "model=transformer", "data.val_fraction=0", "scheduler=plateau")
