"""Every setting that a resumed run may change takes effect; what cannot is refused by name."""

import pytest
import torch
import yaml

from core.errors import ConfigError, Interrupted
from core.same_run import compare
from tests.trainer.interrupting import (
    SHORT,
    assert_equal,
    checkpoint_of,
    events,
    signal_at,
    summary,
)
from trainer.phase import Phase
from trainer.trainer import Trainer

pytestmark = pytest.mark.usefixtures("few_digits")
HALF = 4  # of 9 updates; 5 are an epoch


@pytest.fixture
def trainers(monkeypatch):
    """The trainers of this test, in the order in which they trained."""
    seen = []
    train = Trainer.train

    def train_and_keep(self):
        seen.append(self)
        train(self)

    monkeypatch.setattr(Trainer, "train", train_and_keep)
    return seen


@pytest.fixture
def changed(train, tmp_path, trainers):
    """``changed(before, change)``: half a run, resumed with ``change``; its trainer."""

    def run(before, change):
        run_dir = tmp_path / "changed"
        train(*SHORT, *before, f"trainer.limit_train_steps={HALF}", run_dir=run_dir)
        names = ",".join({word.partition("=")[0].lstrip("+~") for word in change})
        train(*SHORT, *before, *change, f"resume_changes=[{names}]", "resume=auto", run_dir=run_dir)
        assert summary(run_dir)["status"] == "completed"
        return trainers[-1]

    return run


def log(trainer):
    return (trainer.run_log.run_dir / "train.log").read_text()


SGD = ("optimizer=sgd", "scheduler=constant", "optimizer.lr=0.1", "optimizer.momentum=0.9",
       "optimizer.weight_decay=0", "optimizer.nesterov=false")  # fmt: skip
ADAMW = ("optimizer=adamw", "scheduler=constant", "optimizer.lr=0.001")
VIT = (*ADAMW, "model=vit", "model.depth=2", "model.width=16")


@pytest.mark.parametrize(
    ("before", "setting", "value"),
    [
        (SGD, "lr", 0.003),
        (SGD, "weight_decay", 0.3),
        (SGD, "momentum", 0.5),
        (SGD, "nesterov", True),
        (ADAMW, "betas", [0.5, 0.6]),
        (ADAMW, "weight_decay", 0.25),
    ],
)
def test_optimizer_setting(changed, before, setting, value):
    optimizer = changed(before, [f"optimizer.{setting}={value}"]).phases[0].optimizer
    found = optimizer.param_groups[0][setting]
    assert (list(found) if setting == "betas" else found) == value
    assert len(optimizer.state) > 0


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("lr=0.001", (1, 0.001)), ("momentum=0", (0, 0.1)), ("weight_decay=0.5", (1, 0.1))],
)
def test_the_first_update_is_made_with_the_new_setting(train, tmp_path, setting, expected):
    """By the arithmetic of SGD, on the state that the checkpoint holds."""
    run_dir = tmp_path / "run"
    train(*SHORT, *SGD, f"trainer.limit_train_steps={HALF}", run_dir=run_dir)
    before = checkpoint_of(run_dir)
    gradients = {}
    clip = Phase.clip_gradients

    def keep_and_clip(self, *args, **kwargs):
        named = self.compute.objective.model.named_parameters()
        gradients.update({name: p.grad.clone() for name, p in named})
        return clip(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Phase, "clip_gradients", keep_and_clip)
        name, value = setting.split("=")
        train(*SHORT, *SGD, f"optimizer.{setting}", f"resume_changes=[optimizer.{name}]",
              f"trainer.limit_train_steps={HALF + 1}", "resume=auto", run_dir=run_dir)  # fmt: skip
    keeps_momentum, lr = expected
    decay = float(value) if name == "weight_decay" else 0.0
    for key, weight in before["model"].items():
        if key in gradients:
            gradient = gradients[key] + (decay if weight.ndim > 1 else 0.0) * weight
            buffer = before["optimizers"]["train"]["state"][key]["momentum_buffer"]
            step = 0.9 * buffer + gradient if keeps_momentum else gradient
            after = checkpoint_of(run_dir)["model"][key]
            torch.testing.assert_close(after, weight - lr * step, rtol=1e-5, atol=1e-7)


def test_schedule(changed):
    trainer = changed(SGD, ["scheduler=polynomial"])
    rates = {e["step"]: e["optim/lr"] for e in events(trainer.run_log.run_dir) if "optim/lr" in e}
    assert rates[3] == 0.1
    assert rates[9] == pytest.approx(0.1 * (1 - 8 / 9))


def test_another_optimizer(train, tmp_path):
    """Its state is fresh, the schedule goes on, and a line says so."""
    run_dir = tmp_path / "run"
    train(*SHORT, *SGD, f"trainer.limit_train_steps={HALF}", run_dir=run_dir)
    train(*SHORT, "optimizer=adamw", "scheduler=constant", "resume_changes=[optimizer]",
          "resume=auto", run_dir=run_dir)  # fmt: skip
    content = checkpoint_of(run_dir)["optimizers"]["train"]
    assert content["class"] == "torch.optim.adamw.AdamW"
    assert {state["step"].item() for state in content["state"].values()} == {9 - HALF}
    line = "AdamW in place of torch.optim.sgd.SGD: it starts with a fresh state"
    assert line in (run_dir / "train.log").read_text()


@pytest.mark.parametrize(
    ("before", "change"),
    [(("trainer.ema_decay=null",), ["trainer.ema_decay=0.5"]),
     (("trainer.ema_decay=0.5",), ["trainer.ema_decay=null"])],
)  # fmt: skip
def test_average_switched_on_and_off(changed, before, change):
    trainer = changed((*SGD, *before), change)
    content = checkpoint_of(trainer.run_log.run_dir)
    if change == ["trainer.ema_decay=null"]:
        assert content["ema"] is None
        return
    assert content["counters"]["ema_updates"] == 9 - HALF
    distance = {k: (content["ema"][k] - v).abs().max() for k, v in content["model"].items()}
    assert 0 < max(distance.values()) < 0.5


def test_average_switched_on_before_an_evaluation(changed):
    """It begins with the weights of the checkpoint, not with random ones."""
    trainer = changed(SGD, ["trainer.ema_decay=0.9", f"trainer.limit_train_steps={HALF}"])
    model = checkpoint_of(trainer.run_log.run_dir)["model"]
    assert_equal(dict(trainer.ema.module.state_dict()), model, "average")


@pytest.mark.parametrize(
    ("before", "after"), [("fp32", "fp16"), ("fp16", "fp32"), ("fp32", "bf16"), ("fp16", "bf16")]
)
def test_precision(changed, before, after):
    trainer = changed((*SGD, f"trainer.precision={before}"), [f"trainer.precision={after}"])
    assert trainer.scaler.is_enabled() == (after == "fp16")
    assert bool(checkpoint_of(trainer.run_log.run_dir)["scaler"]) == (after == "fp16")


def test_grouping(changed):
    """The state follows the parameters by name, to whatever group they are in."""
    trainer = changed(ADAMW, ["param_groups.decay_norms_and_biases=true"])
    (group,) = trainer.phases[0].optimizer.param_groups
    for parameter in group["params"]:
        state = trainer.phases[0].optimizer.state[parameter]
        assert state["exp_avg"].shape == parameter.shape
        assert state["step"] == 9


def test_layer_decay(changed):
    trainer = changed(VIT, ["param_groups.layer_decay=0.5"])
    groups = trainer.phases[0].optimizer.param_groups
    assert {group["lr"] for group in groups} == {0.001, 0.0005, 0.00025, 0.000125}
    for group in groups:
        for parameter in group["params"]:
            state = trainer.phases[0].optimizer.state[parameter]
            assert state["exp_avg"].shape == parameter.shape
            assert state["step"] == 9


@pytest.mark.parametrize("change", ["trainer.clip_grad_norm=0.001", "trainer.clip_grad_value=1e-6"])
def test_clip(changed, change):
    """Without momentum, the largest change of a weight is bounded by rate and clip."""
    trainer = changed((*SGD, "optimizer.momentum=0"), [change])
    name, value = change.removeprefix("trainer.").split("=")
    assert getattr(trainer.phases[0], name) == float(value)


def test_accumulation(changed, train):
    """The same samples, in the same order."""
    trainer = changed(SGD, ["trainer.accumulate_steps=4"])
    whole = train(*SHORT, *SGD)
    run_dir = trainer.run_log.run_dir
    assert summary(run_dir)["data_order_hash"] == summary(whole)["data_order_hash"]
    assert summary(run_dir)["steps"] == 9


@pytest.mark.parametrize(("size", "per_epoch", "offset"), [(20, 10, 4), (80, 2, -2), (60, 3, -1)])
def test_batch_size(train, tmp_path, trainers, size, per_epoch, offset):
    """4 batches of 40 are consumed: 160 samples of the epoch, of which none comes again.

    The epochs are as many as asked for; updates are counted on.
    """
    run_dir, epochs = tmp_path / "run", ("trainer.max_epochs=3", "trainer.max_steps=null")
    train(*SHORT, *SGD, *epochs, f"trainer.limit_train_steps={HALF}", run_dir=run_dir)
    train(*SHORT, *SGD, *epochs, f"data.batch_size={size}", "resume_changes=[data.batch_size]",
          "resume=auto", run_dir=run_dir)  # fmt: skip
    progress = trainers[-1].progress
    assert progress.batches_offset == offset
    assert progress.batches == 3 * per_epoch
    assert summary(run_dir)["steps"] == 3 * per_epoch - offset
    assert summary(run_dir)["epochs"] == 3
    with signal_at(3 * per_epoch - offset + 1), pytest.raises(Interrupted):
        train(*SHORT, *SGD, "trainer.max_epochs=4", "trainer.max_steps=null",
              f"data.batch_size={size}", "resume_changes=[trainer.max_epochs]", "resume=auto",
              run_dir=run_dir)  # fmt: skip
    assert trainers[-1].progress.batches_offset == offset
    assert trainers[-1].last_step == 4 * per_epoch - offset


def test_data_setting(changed):
    change = "data.augment=[{_target_: data.augment.Cutout, size: 3}]"
    trainer = changed((*SGD, "data.augment=[]"), [change])
    assert "Cutout" in str(yaml.safe_load((trainer.run_log.run_dir / "config.yaml").read_text()))


def test_seed(changed, train):
    """New draws from here on: those of a run with that seed."""
    trainer = changed((*SGD, "seed=1"), ["seed=2"])
    assert trainer.data.seed == 2


def test_horizon(changed):
    """Schedules are functions of the update and the horizon: the rate goes on along the new one."""
    trainer = changed(("optimizer=sgd", "scheduler=polynomial", "optimizer.lr=0.1"),
                      ["trainer.max_steps=12"])  # fmt: skip
    assert trainer.progress.step == 12
    rates = {e["step"]: e["optim/lr"] for e in events(trainer.run_log.run_dir) if "optim/lr" in e}
    assert rates[12] == pytest.approx(0.1 * (1 - 11 / 12))


def test_target(changed):
    """When another target was reached is no news."""
    trainer = changed((*SGD, "trainer.target=0.01"), ["trainer.target=2"])
    assert summary(trainer.run_log.run_dir)["target"] is None


def test_monitor(changed):
    """The best so far was the best of something else."""
    trainer = changed((*SGD, "monitor=val/accuracy"), ["monitor=val/loss", "monitor_mode=min"])
    best = trainer.progress.best
    values = [e["val/loss"] for e in events(trainer.run_log.run_dir) if "val/loss" in e]
    assert best.value == min(values[1:])
    assert checkpoint_of(trainer.run_log.run_dir, "best")["counters"]["step"] == best.step > HALF


@pytest.mark.parametrize(
    ("before", "change", "message"),
    [
        (ADAMW, "+optimizer.amsgrad=true",
         r"optimizer\.amsgrad cannot be changed: the state of AdamW .* has no 'max_exp_avg_sq'"),
        (VIT, "model.width=24", r"model\.width cannot be changed: .* was \(\d.*, is \("),
        (SGD, "trainer.max_steps=3", r"to end after 3 updates \(trainer\.max_steps\), but"),
    ],
)  # fmt: skip
def test_refused(train, tmp_path, before, change, message):
    run_dir, name = tmp_path / "run", change.partition("=")[0].lstrip("+")
    train(*SHORT, *before, f"trainer.limit_train_steps={HALF}", run_dir=run_dir)
    with pytest.raises(ConfigError, match=message):
        train(*SHORT, *before, f"trainer.limit_train_steps={HALF}", change,
              f"resume_changes=[{name}]", "resume=auto", run_dir=run_dir)  # fmt: skip


def test_a_schedule_free_run_keeps_its_averages(changed):
    """What such an optimizer has counted lies among its settings."""
    before = ("optimizer=schedulefree_adamw", "scheduler=constant", "optimizer.lr=0.002")
    group = changed(before, ["optimizer.weight_decay=0.25"]).phases[0].optimizer.param_groups[0]
    assert group["weight_decay"] == 0.25
    assert group["k"] == 9


def test_advice_keeps_the_changes_that_are_named_already():
    config = {"seed": 1, "model": {"dropout": 0.5}, "resume_changes": ["seed"]}
    recorded = {"seed": 0, "model": {"dropout": 0.1}, "resume_changes": []}
    with pytest.raises(ConfigError, match=r"'resume_changes=\[seed,model\.dropout\]'"):
        compare(config, recorded)
