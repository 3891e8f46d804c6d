"""Non-finite losses and gradients: the raise, skip and stop policies, and the fp16 scaler."""

import copy
import json

import pytest
import torch

from core.errors import Diverged
from objectives.adversarial import Adversarial
from objectives.classification import Classification
from tests.trainer.interrupting import assert_equal, checkpoint_of, events, summary
from trainer.trainer import Trainer

pytestmark = pytest.mark.usefixtures("few_digits")
SHORT = (
    "data.batch_size=40",
    "trainer.max_steps=8",
    "trainer.eval_every_steps=2",
    "trainer.log_every_steps=1",
    "trainer.precision=fp32",
)


class NaNGradient(torch.autograd.Function):
    """Identity whose gradient is NaN."""

    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


def make_nonfinite(loss, what):
    """Return ``loss`` with a non-finite gradient, value ("loss value"), or both ("loss")."""
    if what == "gradient":
        return NaNGradient.apply(loss)
    return loss * float("inf") if what == "loss" else loss + float("inf")


@pytest.fixture
def poison(monkeypatch):
    """Return a function that makes given calls of an objective non-finite."""

    def patch_forward(what, calls, objective=Classification, poisoned_phase="train"):
        forward, count = objective.forward, 0

        def forward_and_poison(self, phase, batch):
            nonlocal count
            count += phase == poisoned_phase
            if phase != poisoned_phase or count not in calls:
                return forward(self, phase, batch)
            if what == "input":  # layers see it too, and batch norm statistics keep it
                return forward(self, phase, (batch[0] * float("inf"), *batch[1:]))
            loss, sums = forward(self, phase, batch)
            return make_nonfinite(loss, what), sums

        monkeypatch.setattr(objective, "forward", forward_and_poison)

    return patch_forward


@pytest.mark.parametrize(("what", "value"), [("loss", "(inf|nan)"), ("gradient norm", "nan")])
def test_nonfinite_value_raises_and_keeps_good_checkpoint(train, tmp_path, poison, what, value):
    poison(what.split()[0], {6})
    run_dir = tmp_path / "run"
    with pytest.raises(Diverged, match=f"the {what} of phase train is {value} after 5 updates"):
        train(*SHORT, run_dir=run_dir)
    assert summary(run_dir)["status"] == "diverged"
    assert "last good checkpoint: " + str(run_dir) in summary(run_dir)["error"]
    content = checkpoint_of(run_dir)
    assert content["counters"]["step"] == 4
    assert all(t.isfinite().all() for t in content["model"].values())


@pytest.mark.parametrize(
    "clipping",
    [
        ("trainer.clip_grad_value=1.0",),  # clipping makes infinite gradients finite
        ("trainer.clip_grad_value=1.0", "trainer.clip_grad_norm=1.0"),
    ],
)
def test_infinite_gradients_are_detected_before_clipping(train, tmp_path, monkeypatch, clipping):
    forward, calls = Classification.forward, []

    def forward_with_hook(self, phase, batch):
        calls.append(phase)
        if len(calls) == 6:
            bias = self.model.classifier.bias
            bias.register_hook(lambda gradient: torch.full_like(gradient, float("inf")))
        return forward(self, phase, batch)

    monkeypatch.setattr(Classification, "forward", forward_with_hook)
    message = "the gradient norm of phase train is (inf|nan) after 5 updates"
    with pytest.raises(Diverged, match=message):
        train(*SHORT, "trainer.log_every_steps=50", *clipping, run_dir=tmp_path / "run")


@pytest.mark.parametrize("what", ["loss", "gradient", "loss value", "input"])
def test_skip_policy_skips_updates(train, poison, what):
    poison(what, {2, 4, 5})
    run_dir = train(*SHORT, "trainer.on_nonfinite=skip")
    losses = [event["train/loss"] for event in events(run_dir) if "train/loss" in event]
    assert len(losses) == 8
    assert None not in losses
    assert summary(run_dir)["status"] == "completed"
    assert summary(run_dir)["steps"] == 8
    assert summary(run_dir)["skipped_steps"] == 3
    for name in ("optim/lr", "val/loss"):  # skipped batches record nothing twice
        steps = [event["step"] for event in events(run_dir) if name in event]
        assert steps == sorted(set(steps))
    assert max(event.get("optim/skipped", 0) for event in events(run_dir)) == 3
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # strict JSON: no NaN


@pytest.fixture
def skipped_updates(monkeypatch):
    """Collect the states before and after each skipped update."""
    states = []
    train_step = Trainer.train_step

    def state_of(trainer):
        return copy.deepcopy(trainer.checkpoints.state_dict(trainer.progress))

    def train_step_between_snapshots(trainer, update):
        before, skipped = state_of(trainer), trainer.progress.skipped
        train_step(trainer, update)
        if trainer.progress.skipped > skipped:
            states.append((before, state_of(trainer)))

    monkeypatch.setattr(Trainer, "train_step", train_step_between_snapshots)
    return states


GAN = (
    "model=dcgan",
    "model.width=4",
    "model.latent_dim=8",
    "trainer.test=false",
    "trainer.eval_every_steps=100",
    "trainer.ema_decay=0.9",
    "trainer.checkpoint=false",
)


@pytest.mark.parametrize(
    ("phase", "what", "policy"),
    [
        ("discriminator", "input", "trainer.on_nonfinite=skip"),
        ("generator", "gradient", "trainer.on_nonfinite=skip"),
        ("generator", "gradient", "trainer.precision=fp16"),
    ],
)
def test_skipped_update_reverts_all_phases(train, poison, skipped_updates, phase, what, policy):
    """When the generator's gradient is computed, the discriminator has already stepped."""
    poison(what, {2, 4}, Adversarial, phase)
    run_dir = train(*SHORT, *GAN, policy)
    assert len(skipped_updates) == summary(run_dir)["skipped_steps"] >= 2
    assert summary(run_dir)["steps"] == 8
    for before, after in skipped_updates:
        for part in ("model", "ema"):
            assert_equal(before[part], after[part], part)
        for name, optimizer in before["optimizers"].items():
            assert_equal(optimizer["state"], after["optimizers"][name]["state"], name)


def test_skip_policy_raises_after_100_updates_in_a_row(train, poison):
    poison("gradient", range(3, 1000))
    with pytest.raises(Diverged, match="100 updates in a row had non-finite losses or gradients"):
        train(*SHORT, "trainer.on_nonfinite=skip")


@pytest.mark.parametrize(
    ("poisoned_call", "message"),
    [
        (5, "the loss of phase train is nan after 5 updates"),
        (6, "a weight is not finite after 6 updates"),  # a checkpoint was due
    ],
)
def test_nonfinite_gradients_between_logging_steps_raise(
    train, tmp_path, poison, poisoned_call, message
):
    """Gradient norms are not computed there; the next loss or checkpoint reveals the problem."""
    poison("gradient", {poisoned_call})
    with pytest.raises(Diverged, match=message):
        train(*SHORT, "trainer.log_every_steps=50", run_dir=tmp_path / "run")


def test_stop_policy_returns_worst_value(composed, poison, data_root, tmp_path):
    """A sweep continues with this value."""
    from core.job import Job
    from tests.conftest import QUIET
    from train import run

    poison("loss", {6})
    config = composed(*QUIET, *SHORT, "trainer.on_nonfinite=stop", f"data.root={data_root}")
    assert run(config, Job(run_dir=str(tmp_path))) == float("-inf")
    assert summary(tmp_path)["status"] == "diverged"
    assert "the loss of phase train is inf" in summary(tmp_path)["stop_reason"]
    assert not any("test/loss" in event for event in events(tmp_path))


def test_fp16_scaler_halves_its_scale_and_skips(train, poison):
    """The schedule does not advance in skipped updates, and checkpoints store the scale."""
    poison("gradient", {3, 4})
    run_dir = train(*SHORT, "trainer.precision=fp16", "trainer.channels_last=false")
    rates = [event["optim/lr"] for event in events(run_dir) if "optim/lr" in event]
    assert len(rates) == len(set(rates)) == 8
    scales = [event["optim/loss_scale"] for event in events(run_dir) if "optim/lr" in event]
    assert scales == [2.0**16, 2.0**16, *[2.0**14] * 6]
    assert summary(run_dir)["skipped_steps"] == 2
    assert checkpoint_of(run_dir)["scaler"]["scale"] == 2.0**14
