"""Settings changed on resume take effect; those that cannot change are rejected by name."""

import json
import shutil

import pytest
import torch
import yaml

from core.errors import ConfigError, Interrupted
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
HALF = 4  # of 9 updates; an epoch has 5
SGD = ("optimizer=sgd", "scheduler=constant", "optimizer.lr=0.1", "optimizer.momentum=0.9",
       "optimizer.weight_decay=0", "optimizer.nesterov=false")  # fmt: skip
ADAMW = ("optimizer=adamw", "scheduler=constant", "optimizer.lr=0.001")
VIT = (*ADAMW, "model=vit", "model.depth=2", "model.width=16")


@pytest.fixture(scope="module")
def half_runs():
    return {}


@pytest.fixture
def half_run(train, half_runs, tmp_path_factory, tmp_path):
    """Return a function that copies a half-finished run; each is trained once per module."""

    def copy(*settings):
        if settings not in half_runs:
            run_dir = tmp_path_factory.mktemp("half")
            limit = f"trainer.limit_train_steps={HALF}"
            half_runs[settings] = train(*SHORT, *settings, limit, run_dir=run_dir)
        return shutil.copytree(half_runs[settings], tmp_path / "run")

    return copy


@pytest.fixture
def trainers(monkeypatch):
    """The trainers of this test, in the order in which they trained."""
    trained = []
    train = Trainer.train

    def train_and_keep(self):
        trained.append(self)
        train(self)

    monkeypatch.setattr(Trainer, "train", train_and_keep)
    return trained


@pytest.fixture
def resume_with(train, half_run, trainers):
    """Return a function that resumes half a run with changed settings, and returns its trainer."""

    def run(before, *change):
        run_dir = half_run(*before)
        names = ",".join({word.partition("=")[0].lstrip("+~") for word in change})
        train(*SHORT, *before, *change, f"resume_changes=[{names}]", "resume=auto", run_dir=run_dir)
        assert summary(run_dir)["status"] == "completed"
        return trainers[-1]

    return run


def learning_rates(trainer):
    events_of_run = events(trainer.run_log.run_dir)
    return {event["step"]: event["optim/lr"] for event in events_of_run if "optim/lr" in event}


@pytest.mark.parametrize(
    ("before", "settings"),
    [
        (SGD, {"lr": 0.003, "weight_decay": 0.3, "momentum": 0.5, "nesterov": True}),
        (ADAMW, {"betas": [0.5, 0.6], "weight_decay": 0.25}),
        # schedule-free optimizers keep their step count in the parameter group
        (("optim=schedulefree_adamw", "scheduler=constant"), {"weight_decay": 0.25}),
    ],
)
def test_optimizer_settings_take_effect(resume_with, before, settings):
    change = [f"optimizer.{name}={value}" for name, value in settings.items()]
    optimizer = resume_with(before, *change).phases[0].optimizer
    group = optimizer.param_groups[0]
    found = {name: group[name] for name in settings}
    assert {k: list(v) if k == "betas" else v for k, v in found.items()} == settings
    assert len(optimizer.state) > 0
    assert group.get("k", 9) == 9


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("lr=0.001", (1, 0.001)), ("momentum=0", (0, 0.1)), ("weight_decay=0.5", (1, 0.1))],
)
def test_first_update_uses_the_new_setting(train, half_run, monkeypatch, setting, expected):
    """Compared with SGD's formula, applied to the state in the checkpoint."""
    run_dir = half_run(*SGD)
    before = checkpoint_of(run_dir)
    gradients = {}
    clip = Phase.clip_gradients

    def record_and_clip(self, *args, **kwargs):
        named = self.compute.objective.model.named_parameters()
        gradients.update({name: p.grad.clone() for name, p in named})
        return clip(self, *args, **kwargs)

    monkeypatch.setattr(Phase, "clip_gradients", record_and_clip)
    name, value = setting.split("=")
    train(*SHORT, *SGD, f"optimizer.{setting}", f"resume_changes=[optimizer.{name}]",
          f"trainer.limit_train_steps={HALF + 1}", "resume=auto", run_dir=run_dir)  # fmt: skip
    keeps_momentum, lr = expected
    decay = float(value) if name == "weight_decay" else 0.0
    after = checkpoint_of(run_dir)["model"]
    for key, value in gradients.items():
        weight = before["model"][key]
        gradient = value + (decay if weight.ndim > 1 else 0.0) * weight
        buffer = before["optimizers"]["train"]["state"][key]["momentum_buffer"]
        step = 0.9 * buffer + gradient if keeps_momentum else gradient
        torch.testing.assert_close(after[key], weight - lr * step, rtol=1e-5, atol=1e-7)


def test_different_optimizer_starts_with_fresh_state(train, half_run):
    """The schedule continues, and the log reports the reset."""
    run_dir = half_run(*SGD)
    train(*SHORT, *ADAMW, "resume_changes=[optimizer]", "resume=auto", run_dir=run_dir)
    content = checkpoint_of(run_dir)["optimizers"]["train"]
    assert content["class"] == "torch.optim.adamw.AdamW"
    assert {state["step"].item() for state in content["state"].values()} == {9 - HALF}
    line = "AdamW replaces torch.optim.sgd.SGD: its state starts from scratch"
    assert line in (run_dir / "train.log").read_text()


MUON_WITH_ADOPT = (
    "optimizer=torch_muon",
    "optimizer.rest._target_=optim.pytorch_optimizer.pytorch_optimizer",
    "+optimizer.rest.name=ADOPT",
)


@pytest.mark.parametrize(
    ("before", "setting"),
    [
        ("optimizer=torch_muon", "optimizer.rest._target_=torch.optim.Adam"),
        ("optimizer=lookahead", "optimizer.base_optimizer._target_=torch.optim.Adam"),
    ],
)
def test_different_inner_optimizer_starts_with_fresh_state(train, half_run, before, setting):
    """The old state must not be loaded, although its keys may have the same names."""
    before = (*VIT, before)
    run_dir, key = half_run(*before), setting.partition("=")[0]
    train(*SHORT, *before, setting, "resume_changes=[optimizer]", "resume=auto", run_dir=run_dir)
    states = checkpoint_of(run_dir)["optimizers"]["train"]["state"].values()
    assert {state["step"].item() for state in states if "step" in state} == {9 - HALF}
    log = (run_dir / "train.log").read_text()
    assert f" has another {key}: its state starts from scratch" in log


@pytest.mark.parametrize(
    "before",
    [["optimizer=soap"], ["optimizer=sam"], ["optimizer=lookahead"], MUON_WITH_ADOPT],
)
def test_settings_of_optimizers_with_extra_attributes(resume_with, before):
    """Copying a torch optimizer keeps only its defaults, state and parameter groups."""
    phase = resume_with((*VIT, *before), "optimizer.weight_decay=0.25").phases[0]
    assert max(group["weight_decay"] for group in phase.optimizer.param_groups) == 0.25
    assert len(phase.optimizer.state_dict()["state"]) == len(phase.parameters)


def test_schedule_and_horizon_can_change(resume_with):
    """Schedules are functions of step and horizon, so the rate continues on the new curve."""
    rates = learning_rates(resume_with(SGD, "scheduler=polynomial", "trainer.max_steps=12"))
    assert rates[3] == 0.1
    assert rates[9] == pytest.approx(0.1 * (1 - 8 / 12))
    assert rates[12] == pytest.approx(0.1 * (1 - 11 / 12))


def test_ema_can_be_switched_on(resume_with):
    trainer = resume_with(SGD, "trainer.ema_decay=0.5")
    content = checkpoint_of(trainer.run_log.run_dir)
    assert content["ema_updates"] == 9 - HALF
    distance = {k: (content["ema"][k] - v).abs().max() for k, v in content["model"].items()}
    assert 0 < max(distance.values()) < 0.5


def test_ema_switched_on_starts_from_the_checkpoint(resume_with):
    """It is evaluated before any further update, so random weights would show."""
    trainer = resume_with(SGD, "trainer.ema_decay=0.9", f"trainer.limit_train_steps={HALF}")
    model = checkpoint_of(trainer.run_log.run_dir)["model"]
    assert_equal(dict(trainer.average.module.state_dict()), model, "average")


def test_ema_can_be_switched_off(resume_with):
    trainer = resume_with((*SGD, "trainer.ema_decay=0.5"), "trainer.ema_decay=null")
    assert checkpoint_of(trainer.run_log.run_dir)["ema"] is None


def test_precision_can_change(resume_with, train, trainers):
    """fp16 starts with a fresh loss scale; after it, checkpoints hold none."""
    limit = f"trainer.limit_train_steps={HALF + 1}"
    run_dir = resume_with(SGD, "trainer.precision=fp16", limit).run_log.run_dir
    assert trainers[-1].computation.scaler.is_enabled()
    assert checkpoint_of(run_dir)["scaler"]["scale"] == 2.0**16
    train(*SHORT, *SGD, "resume_changes=[trainer.precision]", "resume=auto", run_dir=run_dir)
    assert not trainers[-1].computation.scaler.is_enabled()
    assert checkpoint_of(run_dir)["scaler"] == {}


@pytest.mark.parametrize(
    ("before", "change", "rates"),
    [
        (ADAMW, "param_groups.decay_norms_and_biases=true", {0.001}),
        (VIT, "param_groups.layer_decay=0.5", {0.001, 0.0005, 0.00025, 0.000125}),
    ],
)
def test_parameter_groups_can_change(resume_with, before, change, rates):
    """Optimizer state is matched by parameter name, whatever the group."""
    optimizer = resume_with(before, change).phases[0].optimizer
    assert {group["lr"] for group in optimizer.param_groups} == rates
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            assert state["exp_avg"].shape == parameter.shape
            assert state["step"] == 9


def test_clipping_accumulation_and_augmentation_can_change(resume_with, train):
    """The samples and their order stay the same."""
    trainer = resume_with(
        SGD,
        "trainer.clip_grad_norm=0.001",
        "trainer.clip_grad_value=1e-6",
        "trainer.accumulate_steps=4",
        "data.augment=[{_target_: data.augment.Cutout, size: 3}]",
    )
    run_dir, (phase,) = trainer.run_log.run_dir, trainer.phases
    assert (phase.clip_grad_norm, phase.clip_grad_value) == (0.001, 1e-6)
    assert trainer.data.accumulate_steps == 4
    assert "Cutout" in str(yaml.safe_load((run_dir / "config.yaml").read_text()))
    assert summary(run_dir)["data_order_hash"] == summary(train(*SHORT, *SGD))["data_order_hash"]


@pytest.mark.parametrize(("size", "per_epoch", "offset"), [(20, 10, 4), (80, 2, -2), (60, 3, -1)])
def test_batch_size_can_change(train, half_run, trainers, size, per_epoch, offset):
    """The 160 samples of the epoch that were consumed in 4 batches of 40 do not come again.

    The number of epochs stays as configured, and the step count continues.
    """
    epochs = ("trainer.max_epochs=3", "trainer.max_steps=null")
    run_dir = half_run(*SGD, *epochs)
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


def test_new_carried_state_starts_empty(train, tmp_path, data_root):
    """The checkpoint has no carried state; the log reports the reset."""
    text = ("model=lstm", "model.width=16", "data.batch_size=8", "objective.sample_tokens=0",
            "trainer.max_steps=4", "trainer.limit_eval_steps=1")  # fmt: skip
    plain = ("objective=language_modeling", "data.lanes=null", "trainer.limit_train_steps=2")
    train(*text, *plain, run_dir=tmp_path / "run")
    change = ("resume=auto", "resume_changes=[objective,data.lanes]")
    run_dir = train(*text, *change, run_dir=tmp_path / "run")
    assert checkpoint_of(run_dir)["data"]["carried"]["carried"].any()
    assert "the carried state is reset" in (run_dir / "train.log").read_text()


def test_seed_can_change(resume_with):
    """Later draws are those of a run with the new seed."""
    assert resume_with(SGD, "seed=2").data.seed == 2


def test_target_change_resets_time_to_target(resume_with):
    trainer = resume_with((*SGD, "trainer.target=0.01"), "trainer.target=1")
    assert summary(trainer.run_log.run_dir)["target"] is None


def test_monitor_change_resets_best(resume_with):
    """The best value so far was that of another metric."""
    trainer = resume_with(SGD, "monitor=val/loss", "monitor_mode=min")
    run_dir, best = trainer.run_log.run_dir, trainer.progress.best
    values = [e["val/loss"] for e in events(run_dir) if "val/loss" in e]
    assert best.value == min(values[1:])
    assert checkpoint_of(run_dir, "best")["counters"]["step"] == best.step > HALF
    assert "from here on, val/loss decides the best" in (run_dir / "train.log").read_text()


def test_limit_eval_steps_change_resets_best(train, half_run):
    """A perfect score on two samples would never be beaten on the full split."""
    few = ("trainer.limit_eval_steps=1", "data.eval_batch_size=2")
    run_dir = half_run(*SGD, *few)
    content = checkpoint_of(run_dir)
    content["counters"]["best"]["value"] = 1.0
    torch.save(content, run_dir / "checkpoints" / "last.pt")
    train(*SHORT, *SGD, *few, "trainer.limit_eval_steps=null", "resume=auto",
          "resume_changes=[trainer.limit_eval_steps]", run_dir=run_dir)  # fmt: skip
    assert checkpoint_of(run_dir)["counters"]["best"]["step"] > HALF


@pytest.mark.parametrize(
    ("before", "change", "message"),
    [
        (ADAMW, "+optimizer.amsgrad=true",
         r"optimizer\.amsgrad cannot be changed: the state of AdamW .* has no 'max_exp_avg_sq'"),
        ((*VIT, "optimizer=muon"), "param_groups.not_hidden=[mlp]",
         r"param_groups\.not_hidden cannot be changed: the state of Muon .* has no 'step'"),
        (VIT, "model.width=24", r"model\.width cannot be changed: .* was \(\d.*, is \("),
        (SGD, "trainer.max_steps=3", r"with trainer\.max_steps the run ends after 3 updates, but"),
    ],
)  # fmt: skip
def test_impossible_changes_are_rejected(train, half_run, before, change, message):
    run_dir, name = half_run(*before), change.partition("=")[0].lstrip("+")
    with pytest.raises(ConfigError, match=message):
        train(*SHORT, *before, f"trainer.limit_train_steps={HALF}", change,
              f"resume_changes=[{name}]", "resume=auto", run_dir=run_dir)  # fmt: skip


def test_changed_device_and_precision_are_reported(half_run, train, capsys):
    run_dir = half_run(*SGD)
    file = run_dir / "summary.json"
    on_gpu = summary(run_dir) | {"device": "NVIDIA H200", "precision": "tf32"}
    file.write_text(json.dumps(on_gpu))
    train(*SHORT, *SGD, "resume=auto", run_dir=run_dir)
    printed = " ".join(capsys.readouterr().out.split())
    assert "device was NVIDIA H200, is cpu; precision was tf32, is fp32: from here on" in printed
