"""Resuming on the same and on a different number of processes."""

import os

import pytest
import torch

import train as program
from core.errors import Interrupted
from core.job import Job
from tests.conftest import QUIET
from tests.trainer.interrupting import (
    assert_same_run,
    checkpoint_of,
    events,
    signal_at,
    summary,
)
from trainer.distributed.launch import launch

pytestmark = pytest.mark.slow

# updates 5 and 10 are in the middle of an epoch, of a logging interval, between evaluations
SETTINGS = (
    *QUIET,
    "data.batch_size=100",
    "trainer.max_steps=14",
    "trainer.eval_every_steps=8",
    "trainer.log_every_steps=4",
    "trainer.precision=fp32",
    "trainer.ema_decay=0.9",
    "data.augment=[{_target_: data.augment.RandomAffine}]",
    "model.dropout=0",
    "optim=sgd_cosine",  # Adam would turn rounding errors into steps
    "optimizer.lr=0.01",
    "resume=auto",
)
RANDOM = (
    "model.dropout=0.2",
    "objective.mixup_alpha=0.4",
)  # each process draws for its own samples


def run_and_signal(config, job):
    """Train; only rank 1 gets a signal, at update ``SIGNAL_AT``."""
    step = int(os.environ.get("SIGNAL_AT", "0"))
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, os.environ.get("DTYPE", "float32")))
    try:
        with (
            signal_at(step if os.environ.get("RANK") in (None, "1") else 0),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr("trainer.signals.SYNC_SECONDS", 0)  # ranks agree after every update
            return program.run(config, job)
    finally:
        torch.set_default_dtype(before)


@pytest.fixture
def run_on(composed, data_root, tmp_path, monkeypatch):
    """Return a function that trains on a number of processes, in the run directory ``name``."""

    def run(devices, name, *overrides, signal_at=0):
        monkeypatch.setenv("SIGNAL_AT", str(signal_at))
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        arguments = (*SETTINGS, f"trainer.devices={devices}", f"data.root={data_root}", *overrides)
        launch(run_and_signal, composed(*arguments), Job(run_dir=str(folder)))
        return folder

    return run


def test_same_number_of_processes_is_bit_identical(run_on):
    """This includes random states, and sums accumulated for the next logging step."""
    uninterrupted = run_on(2, "uninterrupted", *RANDOM)
    for step in (5, 10):
        with pytest.raises(Interrupted):
            run_on(2, "resumed", *RANDOM, signal_at=step)
    assert summary(uninterrupted.parent / "resumed")["steps"] == 10
    assert_same_run(uninterrupted, run_on(2, "resumed", *RANDOM))


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_different_number_of_processes_only_evaluates(run_on, before, after):
    """Accumulated sums are restored on one process, but all take part in reducing them."""
    with pytest.raises(Interrupted):
        run_on(before, "resumed", signal_at=5)
    limit = f"trainer.limit_train_steps={5 if before == 1 else 10}"
    resumed, single = run_on(after, "resumed", limit), run_on(1, "single", limit)
    name = "train/loss_since_eval"
    one, other = ({e["step"]: e[name] for e in events(d) if name in e} for d in (resumed, single))
    assert one == pytest.approx(other, rel=1e-3)
    assert max(one) == (5 if before == 1 else 10)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_different_number_of_processes_trains_alike(run_on, monkeypatch, before, after):
    """Samples and their order are equal; weights in double precision, as in ``test_parity.py``."""
    monkeypatch.setenv("DTYPE", "float64")
    uninterrupted = run_on(1, "uninterrupted")
    with pytest.raises(Interrupted):
        run_on(before, "resumed", signal_at=5)
    resumed = run_on(after, "resumed")
    assert summary(resumed)["world_size"] == after
    assert summary(resumed)["data_order_hash"] == summary(uninterrupted)["data_order_hash"]
    one, other = checkpoint_of(resumed), checkpoint_of(uninterrupted)
    for content in (one, other):
        content["state"] = content["optimizers"]["train"]["state"]
    for key in ("model", "ema", "state"):
        torch.testing.assert_close(one[key], other[key], rtol=0, atol=1e-7)
    for one, other in zip(events(resumed), events(uninterrupted), strict=True):
        one.pop("media", None), other.pop("media", None)
        assert one == pytest.approx(other, rel=0, abs=1e-5)  # recorded in single precision
