"""Losses and gradients that are not finite: raise, skip, stop; checkpoints stay good."""

import json

import pytest
import torch

from tests.trainer.interrupting import checkpoint_of, events, summary
from trainer.errors import Diverged
from trainer.objectives.classification import Classification

pytestmark = pytest.mark.usefixtures("few_digits")
SHORT = (
    "data.batch_size=40",
    "trainer.max_steps=8",
    "trainer.eval_every_steps=2",
    "trainer.log_every_steps=1",
    "trainer.precision=fp32",
)


class Poison(torch.autograd.Function):
    """The loss stays as it is; its gradient becomes NaN."""

    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


@pytest.fixture
def poisoned(monkeypatch):
    """``poisoned("loss", {3, 5})``: what goes wrong, in which calls of the objective."""

    def poison(what, calls):
        forward, count = Classification.forward, 0

        def forward_and_poison(self, phase, batch):
            nonlocal count
            loss, sums = forward(self, phase, batch)
            count += 1
            if count not in calls:
                return loss, sums
            return (Poison.apply(loss) if what == "gradient" else loss * float("inf")), sums

        monkeypatch.setattr(Classification, "forward", forward_and_poison)

    return poison


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_raise(train, tmp_path, poisoned, what):
    poisoned(what, {6})
    run_dir = tmp_path / "run"
    with pytest.raises(
        Diverged, match=rf"the {what}.* of phase train is (inf|nan) after 5 updates"
    ):
        train(*SHORT, run_dir=run_dir)
    assert summary(run_dir)["status"] == "diverged"
    assert "last good checkpoint: " + str(run_dir) in summary(run_dir)["error"]
    content = checkpoint_of(run_dir)
    assert content["counters"]["step"] == 4
    assert all(t.isfinite().all() for t in content["model"].values())


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_skip(train, poisoned, what):
    poisoned(what, {2, 4, 5})
    run_dir = train(*SHORT, "trainer.on_nonfinite=skip")
    losses = [event["train/loss"] for event in events(run_dir) if "train/loss" in event]
    assert len(losses) == 8
    assert None not in losses
    assert summary(run_dir)["status"] == "completed"
    assert summary(run_dir)["steps"] == 8
    assert summary(run_dir)["skipped_steps"] == 3
    for name in ("optim/lr", "val/loss"):  # nothing is recorded twice for a skipped batch
        steps = [event["step"] for event in events(run_dir) if name in event]
        assert steps == sorted(set(steps))
    assert max(event.get("optim/skipped", 0) for event in events(run_dir)) == 3
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # strict JSON: no NaN


def test_skip_is_not_for_ever(train, poisoned):
    poisoned("gradient", range(3, 1000))
    with pytest.raises(Diverged, match="100 updates in a row had gradients that are not finite"):
        train(*SHORT, "trainer.on_nonfinite=skip")


def test_stop(composed, poisoned, data_root, tmp_path):
    """The sweep gets the worst value and goes on."""
    from tests.conftest import QUIET
    from train import run
    from trainer.records import Job

    poisoned("loss", {6})
    config = composed(*QUIET, *SHORT, "trainer.on_nonfinite=stop", f"data.root={data_root}")
    assert run(config, Job(run_dir=str(tmp_path))) == float("-inf")
    assert summary(tmp_path)["status"] == "diverged"
    assert "the loss of phase train is inf" in summary(tmp_path)["stop_reason"]
    assert not any("test/loss" in event for event in events(tmp_path))


def test_scaler(train, poisoned):
    """fp16: the scaler halves its scale and skips; the schedule waits; a checkpoint keeps it."""
    poisoned("gradient", {3, 4})
    run_dir = train(*SHORT, "trainer.precision=fp16", "trainer.channels_last=false")
    rates = [event["optim/lr"] for event in events(run_dir) if "optim/lr" in event]
    assert len(rates) == len(set(rates)) == 8
    assert summary(run_dir)["skipped_steps"] == 2
    assert checkpoint_of(run_dir)["scaler"]["scale"] == 2.0**14
