"""Writing checkpoints: in one piece or not at all, and read back exactly."""

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


def content(value: float) -> dict:
    numbers = dict.fromkeys(("ema_updates", "num_events"), 0)
    empty = {name: {} for name in checkpoint.PARTS}
    model = {"w": torch.full((1000,), value)}
    return empty | numbers | {"model": model, "format_version": checkpoint.FORMAT_VERSION}


def value_in(file) -> float:
    return checkpoint.load(file)["model"]["w"].unique().item()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("has_links", [True, False])
def test_last_previous_best(folder, monkeypatch, has_links):
    if not has_links:
        monkeypatch.setattr(os, "link", failing(1, "Operation not permitted"))
    for value, is_best in ((1.0, True), (2.0, False), (3.0, False)):
        checkpoint.write(content(value), folder, is_best)
    values = {file.stem: value_in(file) for file in folder.iterdir()}
    assert values == {"last": 3.0, "previous": 2.0, "best": 1.0}


def failing(number, text):
    def fail(*arguments, **settings):
        raise OSError(number, text)

    return fail


@pytest.mark.parametrize("failure", ["write", "fsync", "rename", "link"])
def test_full_disk(folder, monkeypatch, failure):
    """One clear line, the last good checkpoint as it was, nothing half-written left."""
    checkpoint.write(content(1.0), folder, is_best=False)
    full = failing(28, "No space left on device")
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
            checkpoint.write(content(2.0), folder, is_best=False)
    assert value_in(folder / "last.pt") == 1.0
    assert not (folder / ".last.pt.tmp").exists()


def test_full_disk_in_training(train, few_digits, tmp_path):
    """Files may grow to 30 kB, as on a full disk."""
    run_dir = tmp_path / "run"
    message = r"cannot write the checkpoint .*: (the disk may be full|File too large)"
    with full_disk(30_000), pytest.raises(ConfigError, match=message):
        train("debug=fast", "data.batch_size=40", run_dir=run_dir)
    assert summary(run_dir)["status"] == "failed"
    assert not list((run_dir / "checkpoints").iterdir())


def test_truncations_and_flips(folder):
    """A file cut anywhere, or with a bit turned in the tensors, is never taken for a good one."""
    checkpoint.write(content(1.0), folder, is_best=False)
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


def test_state_that_cannot_be_read_back(train, few_digits, tmp_path, monkeypatch):
    """It is noticed before training, not when the run is over and its test is lost."""
    step = torch.optim.SGD.step

    def step_and_keep_an_array(self, closure=None):
        step(self, closure)
        self.state[self.param_groups[0]["params"][0]]["history"] = numpy.zeros(2)

    monkeypatch.setattr(torch.optim.SGD, "step", step_and_keep_an_array)
    overrides = ("debug=fast", "data.batch_size=40")
    with pytest.raises(
        ConfigError, match="checkpoint cannot hold the state of SGD, which is not just"
    ):
        train(*overrides, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    unsaved = train(*overrides, "trainer.checkpoint=false")
    assert summary(unsaved)["status"] == "completed"


class CopiesToHost(TorchDispatchMode):
    """What is asked of torch about each copy from another device to the host."""

    def __init__(self):
        super().__init__()
        self.non_blocking = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if "_to_copy" in str(function) and kwargs.get("device") == torch.device("cpu"):
            self.non_blocking.append(kwargs.get("non_blocking"))
        return function(*args, **kwargs)


@pytest.mark.parametrize("is_main", [True, False])
def test_a_gpus_tensors_are_waited_for_once(monkeypatch, is_main):
    """Without a GPU: torch's fake tensors. Only the process that writes copies anything."""
    waits = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waits.append)
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
    on_host = [*tensors_in(content)]
    state = content["optimizers"]["train"]["state"]
    num_weights = len([*model.parameters()])  # a tied one is one
    assert set(state) == {name for name, _ in model.named_parameters()}
    assert len(copies.non_blocking) == (5 * num_weights + 1 if is_main else 0)
    assert all(copies.non_blocking)
    assert len(waits) == is_main
    if is_main:
        assert {tensor.device.type for tensor in on_host} == {"cpu"}
        assert content["model"]["0.weight"] is content["model"]["1.weight"]
    else:
        assert on_host == []


def test_no_process_pins_memory_for_the_hash_of_its_weights():
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


def test_on_the_cpu_nothing_is_copied():
    weight = torch.zeros(3, 4)
    state = {"own": weight, "first": weight[:2], "last": weight[1:], "nested": [(weight, 1), None]}
    found = checkpoint.to_host(state)
    assert found["own"] is weight
    assert found["nested"] == [(weight, 1), None]
    for view in ("first", "last"):
        assert found[view].data_ptr() == state[view].data_ptr()
