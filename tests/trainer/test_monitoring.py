"""Diagnostics of training: norms per layer, the ``after_backward`` hook, profiles."""

import json

import pytest
import torch

from core.errors import ConfigError
from objectives.classification import Classification
from tests.trainer.interrupting import SHORT, events, summary

pytestmark = pytest.mark.usefixtures("few_digits")
MONITORED = (*SHORT, "trainer.clip_grad_norm=0.1", "trainer.log_every_steps=3")


def test_norms_of_layers_add_up_to_total(train):
    """Gradient norms are taken before clipping, update norms after."""
    run = train(*MONITORED, "trainer.monitor_layers=true")
    logged = [event for event in events(run) if "train/grad_norm" in event]
    assert [event["step"] for event in logged] == [1, 3, 6, 9]
    totals = {"grad_norm": "train/", "weight_norm": "optim/", "update_norm": "optim/"}
    for event in logged:
        for norm, prefix in totals.items():
            layers = [v for name, v in event.items() if name.startswith("layers/") and norm in name]
            assert len(layers) == 11
            total = sum(value**2 for value in layers) ** 0.5
            assert total == pytest.approx(event[prefix + norm], rel=1e-4)
    assert "layers/features.0.conv/grad_norm" in logged[0]
    unlogged = [event for event in events(run) if "train/grad_norm" not in event]
    assert not any(name.startswith("layers/") for event in unlogged for name in event)
    assert "layers/" not in (run / "train.log").read_text()


def test_after_backward_sees_gradients_before_clipping(train, monkeypatch):
    def after_backward(self, phase):
        assert phase == "train"
        grads = [p.grad for p in self.model.parameters()]
        return {"largest": (torch.stack([g.abs().max() for g in grads]).max(), 1)}

    plain = train(*MONITORED)
    monkeypatch.setattr(Classification, "after_backward", after_backward)
    run = train(*MONITORED)
    logged = [event for event in events(run) if "train/largest" in event]
    assert [event["step"] for event in logged] == [1, 3, 6, 9]
    assert 0.1 < logged[0]["train/largest"] < logged[0]["train/grad_norm"]
    assert summary(run)["val/loss"] == summary(plain)["val/loss"]


def test_profile_covers_the_requested_steps(train):
    settings = ("data.batch_size=8", "trainer.max_steps=13", "trainer.test=false")
    plain = train(*settings)
    run = train(*settings, "trainer.profile_steps=3")
    trace = json.loads((run / "profile" / "trace.json").read_text())
    names = [event.get("name", "") for event in trace["traceEvents"]]
    steps = {name for name in names if name.startswith("ProfilerStep#")}
    assert steps == {"ProfilerStep#10", "ProfilerStep#11", "ProfilerStep#12"}
    assert "Optimizer.step" in (run / "profile" / "table.txt").read_text()
    assert f"{run}/profile/table.txt" in (run / "train.log").read_text()
    assert summary(run)["val/loss"] == summary(plain)["val/loss"]


def test_profile_longer_than_the_run_is_rejected(train):
    with pytest.raises(ConfigError, match=r"profile_steps=3 needs 13 updates, .* only 9 remain"):
        train(*SHORT, "trainer.profile_steps=3")
