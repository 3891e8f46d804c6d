"""Weight averages (SWA, EMA), and batch norm statistics of the weights that are evaluated."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from core.errors import ConfigError
from tests.trainer.interrupting import checkpoint_of
from trainer.averaging import Average, estimate_statistics

SIX_STEPS = ("trainer.max_steps=6", "trainer.eval_every_steps=2", "trainer.log_every_steps=1")
SWA = ("trainer.average=swa", "trainer.swa_start=0.4", "trainer.swa_every_steps=2")


def test_swa_equals_mean_of_sampled_weights():
    model = nn.Linear(2, 2, bias=False)
    average = Average(model, start=3, every=2)
    sampled = []
    for step in range(1, 8):
        nn.init.normal_(model.weight, generator=torch.Generator().manual_seed(step))
        average.update(model, step)
        sampled += [model.weight.detach().clone()] * (step in (3, 5, 7))
    assert average.num_updates == 3
    torch.testing.assert_close(average.module.weight, torch.stack(sampled).mean(0))


@pytest.mark.usefixtures("few_digits")
def test_swa_counts_updates_and_leaves_training_unchanged(train):
    averaged, plain = checkpoint_of(train(*SIX_STEPS, *SWA)), checkpoint_of(train(*SIX_STEPS))
    assert averaged["ema_updates"] == 3  # after 2, 4 and 6
    torch.testing.assert_close(averaged["model"], plain["model"], rtol=0, atol=0)


class ForwardOnly(nn.Module):
    """The part of an objective that ``estimate_statistics`` uses."""

    def evaluate(self, model, batch):
        model(batch[0])


def test_batchnorm_statistics_are_means_over_batches():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3).requires_grad_(False))
    unused = nn.BatchNorm1d(2)
    model.add_module("unused", nn.Identity())
    model.unused.norm = unused
    unused.running_mean.fill_(7.0)
    batches = [torch.randn(8, 3) * k + k for k in (1.0, 2.0, 3.0)]
    data = SimpleNamespace(
        device=torch.device("cpu"), spread_over_training=lambda limit: [(b,) for b in batches]
    )
    estimate_statistics(ForwardOnly(), model, data, "fp32")
    mean = torch.stack([batch.mean(0) for batch in batches]).mean(0)
    variance = torch.stack([batch.var(0) for batch in batches]).mean(0)
    torch.testing.assert_close(model[0].running_mean, mean)
    torch.testing.assert_close(model[0].running_var, variance)
    assert (model[0].momentum, model[0].training) == (0.1, False)
    assert torch.equal(model[1].running_mean, torch.zeros(3))  # frozen
    assert torch.equal(unused.running_mean, torch.full((2,), 7.0))  # not used in evaluation


@pytest.mark.usefixtures("few_digits")
def test_schedule_free_reestimates_batchnorm_statistics(train, monkeypatch):
    """Schedule-free optimizers train and evaluate with different weights."""
    reestimated = train(*SIX_STEPS, "optim=schedulefree_sgd")
    monkeypatch.setattr("trainer.trainer.estimate_statistics", lambda *_: None)
    plain = train(*SIX_STEPS, "optim=schedulefree_sgd")
    own, other = checkpoint_of(reestimated)["model"], checkpoint_of(plain)["model"]
    differing = {name for name in own if not torch.equal(own[name], other[name])}
    assert differing
    assert all("running" in name or "num_batches" in name for name in differing)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("trainer.average=swa", "trainer.ema_decay=0.9"),
            "average=swa does not use .*ema_decay",
        ),
        (
            ("trainer.average=swa", "optim=schedulefree_sgd"),
            "average=swa cannot be used with SGDSched",
        ),
        (("trainer.average=ema", "trainer.swa_every_steps=2"), "swa_every_steps=2 needs .*=swa"),
        (("trainer.ema_decay=0.9", "optim=schedulefree_sgd"), "decay=0.9 cannot be used with SGD"),
    ],
)
def test_incompatible_averaging_settings_are_rejected(train, overrides, message):
    with pytest.raises(ConfigError, match=message):
        train("debug=fast", *overrides)
