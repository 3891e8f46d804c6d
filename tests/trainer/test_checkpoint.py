"""Checkpoint files: atomic writes, detection of damage, copies to the host."""

import os
from types import SimpleNamespace

import numpy
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from core.errors import ConfigError
from core.progress import Progress
from core.ranks import Ranks
from tests.trainer.interrupting import full_disk, summary
from trainer.checkpoint import files as checkpoint
from trainer.checkpoint import state as checkpoint_state
from trainer.checkpoint.optimizer_state import OptimizerState


def make_checkpoint(value: float) -> dict:
    numbers = dict.fromkeys(("ema_updates", "num_events"), 0)
    empty = {name: {} for name in checkpoint.PARTS}
    model = {"w": torch.full((1000,), value)}
    return empty | numbers | {"model": model, "format_version": checkpoint.FORMAT_VERSION}


def value_in(file) -> float:
    return checkpoint.load(file)["model"]["w"].unique().item()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("supports_links", [True, False])
def test_write_keeps_last_previous_and_best(folder, monkeypatch, supports_links):
    if not supports_links:
        monkeypatch.setattr(os, "link", raises_os_error(1, "Operation not permitted"))
    for value, is_best in ((1.0, True), (2.0, False), (3.0, False)):
        checkpoint.write(make_checkpoint(value), folder, is_best)
    values = {file.stem: value_in(file) for file in folder.iterdir()}
    assert values == {"last": 3.0, "previous": 2.0, "best": 1.0}


def raises_os_error(number, text):
    def fail(*arguments, **settings):
        raise OSError(number, text)

    return fail


@pytest.mark.parametrize("failure", ["write", "fsync", "rename", "link"])
def test_failed_write_keeps_last_checkpoint(folder, monkeypatch, failure):
    """The error is one line, and no partial file is left."""
    checkpoint.write(make_checkpoint(1.0), folder, is_best=False)
    full = raises_os_error(28, "No space left on device")
    with monkeypatch.context() as patch:
        if failure == "write":
            patch.setattr(torch, "save", full)
        elif failure == "fsync":
            patch.setattr(os, "fsync", full)
        elif failure == "rename":
            patch.setattr(checkpoint.Path, "replace", full)
        else:
            patch.setattr(os, "link", full)
            patch.setattr(checkpoint.shutil, "copyfile", full)
        message = r"cannot write the checkpoint .*: No space left on dev"
        with pytest.raises(ConfigError, match=message):
            checkpoint.write(make_checkpoint(2.0), folder, is_best=False)
    assert value_in(folder / "last.pt") == 1.0
    assert not (folder / ".last.pt.tmp").exists()


def test_full_disk_in_training_fails_the_run(train, few_digits, tmp_path):
    """A file size limit of 30 kB stands in for the full disk."""
    run_dir = tmp_path / "run"
    message = r"cannot write the checkpoint .*: (the disk may be full|File too large)"
    with full_disk(30_000), pytest.raises(ConfigError, match=message):
        train("debug=fast", "data.batch_size=40", run_dir=run_dir)
    assert summary(run_dir)["status"] == "failed"
    assert not list((run_dir / "checkpoints").iterdir())


def test_truncated_or_corrupted_file_is_detected(folder):
    """Truncation at many lengths, and a changed byte in a tensor."""
    checkpoint.write(make_checkpoint(1.0), folder, is_best=False)
    path = folder / "last.pt"
    raw = path.read_bytes()
    for length in range(0, len(raw), 997):
        path.write_bytes(raw[:length])
        with pytest.raises(ConfigError, match="is damaged"):
            checkpoint.load(path)
    position = raw.index(torch.full((4,), 1.0).numpy().tobytes())
    path.write_bytes(raw[:position] + b"\1" + raw[position + 1 :])
    with pytest.raises(ConfigError, match="is damaged: wrong checksum"):
        checkpoint.load(path)


def test_unserializable_optimizer_state_is_rejected(train, few_digits, tmp_path, monkeypatch):
    """Checked before training; otherwise reading the checkpoint for the final test would fail."""
    step = torch.optim.SGD.step

    def step_and_store_array(self, closure=None):
        step(self, closure)
        self.state[self.param_groups[0]["params"][0]]["history"] = numpy.zeros(2)

    monkeypatch.setattr(torch.optim.SGD, "step", step_and_store_array)
    overrides = ("debug=fast", "data.batch_size=40")
    with pytest.raises(
        ConfigError, match="checkpoint cannot hold the state of SGD, which is not just"
    ):
        train(*overrides, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    without_checkpoints = train(*overrides, "trainer.checkpoint=false")
    assert summary(without_checkpoints)["status"] == "completed"


class CopiesToHost(TorchDispatchMode):
    """Records ``non_blocking`` of each copy from another device to the host."""

    def __init__(self):
        super().__init__()
        self.non_blocking = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if "_to_copy" in str(function) and kwargs.get("device") == torch.device("cpu"):
            self.non_blocking.append(kwargs.get("non_blocking"))
        return function(*args, **kwargs)


@pytest.mark.parametrize("is_main", [True, False])
def test_checkpoint_synchronizes_gpu_once(monkeypatch, is_main):
    """Measured with torch's fake CUDA tensors. Only the rank that writes copies anything."""
    syncs = []
    monkeypatch.setattr(torch.accelerator, "synchronize", syncs.append)
    with FakeTensorMode(), torch.device("cuda"):
        model, average = (nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5)) for _ in range(2))
        for net in (model, average):
            net[1].weight = net[0].weight
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        optimizer.step()
        checkpoints = object.__new__(checkpoint_state.Checkpoints)
        vars(checkpoints).update(
            ranks=Ranks(rank=int(not is_main)),
            objective=SimpleNamespace(model=model, state=lambda: {"carried": torch.zeros(2)}),
            phases=[
                SimpleNamespace(name="train", optimizer_state=OptimizerState(optimizer, model))
            ],
            average=SimpleNamespace(module=average, num_updates=1),
            scaler=SimpleNamespace(state_dict=dict),
            data=SimpleNamespace(state=lambda batches: {}),
            metrics=SimpleNamespace(state=dict),
            run_log=SimpleNamespace(num_events=0, summary={}),
        )
        with CopiesToHost() as copies:
            content = checkpoints.state_dict(Progress())
    saved_tensors = [*tensors_in(content)]
    state = content["optimizers"]["train"]["state"]
    num_weights = len([*model.parameters()])  # tied weights count once
    assert set(state) == {name for name, _ in model.named_parameters()}
    assert len(copies.non_blocking) == (5 * num_weights + 1 if is_main else 0)
    assert all(copies.non_blocking)
    assert len(syncs) == is_main
    if is_main:
        assert {tensor.device.type for tensor in saved_tensors} == {"cpu"}
        assert content["model"]["0.weight"] is content["model"]["1.weight"]
    else:
        assert saved_tensors == []


def test_weights_hash_does_not_pin_memory():
    """Non-blocking copies to the host allocate pinned memory."""
    with FakeTensorMode(), torch.device("cuda"), CopiesToHost() as copies:
        checkpoint.weights_of(nn.Linear(2, 3))
    assert len(copies.non_blocking) == 2
    assert not any(copies.non_blocking)


def tensors_in(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(part)


def test_cpu_tensors_are_not_copied():
    weight = torch.zeros(3, 4)
    state = {"own": weight, "first": weight[:2], "last": weight[1:], "nested": [(weight, 1), None]}
    found = checkpoint.to_host(state)
    assert found["own"] is weight
    assert found["nested"] == [(weight, 1), None]
    for view in ("first", "last"):
        assert found[view].data_ptr() == state[view].data_ptr()
