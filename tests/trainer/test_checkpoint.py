"""Writing checkpoints: in one piece or not at all, beside training, and read back exactly."""

import os
import resource
import threading

import numpy
import pytest
import torch

from core.errors import ConfigError
from tests.trainer.interrupting import summary
from trainer import checkpoint


def content(value: float) -> dict:
    empty = {key: {} for key in checkpoint.KINDS}
    counters = dict.fromkeys(checkpoint.COUNTERS, 0)
    return empty | {
        "model": {"w": torch.full((1000,), value)},
        "data": {"value": value},
        "counters": counters,
        "format_version": checkpoint.FORMAT_VERSION,
    }


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def test_last_previous_best(folder):
    writer = checkpoint.Writer(folder)
    for value, is_best in ((1.0, True), (2.0, False), (3.0, False)):
        writer.write(content(value), is_best)
    writer.wait()
    values = {file.stem: checkpoint.load(file)["data"]["value"] for file in folder.iterdir()}
    assert values == {"last": 3.0, "previous": 2.0, "best": 1.0}


def test_copy_is_of_the_moment(folder, monkeypatch):
    """What training does to the tensors while they are written is not in the file."""
    writer = checkpoint.Writer(folder)
    writer.write(content(0.0), is_best=False)  # the first is waited for
    go_on = threading.Event()
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *a, **k: (go_on.wait(10), save(*a, **k)))
    state = content(1.0)
    writer.write(state, is_best=False)
    state["model"]["w"].zero_()
    go_on.set()
    writer.wait()
    assert checkpoint.load(folder / "last.pt")["model"]["w"].eq(1).all()


@pytest.mark.parametrize("failure", ["write", "fsync", "rename", "link"])
def test_full_disk(folder, monkeypatch, failure):
    """One clear line, the last good checkpoint as it was, nothing half-written left."""
    checkpoint.save(content(1.0), folder / "last.pt")

    def full(*arguments, **settings):
        raise OSError(28, "No space left on device")

    if failure == "write":
        monkeypatch.setattr(torch, "save", full)
    elif failure == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    elif failure == "rename":
        monkeypatch.setattr(checkpoint.Path, "replace", full)
    else:
        monkeypatch.setattr(os, "link", full)
        monkeypatch.setattr(checkpoint.shutil, "copyfile", full)
    writer = checkpoint.Writer(folder)
    with pytest.raises(ConfigError, match=r"cannot write the checkpoint .*: No space left on dev"):
        writer.write(content(2.0), is_best=False)
    monkeypatch.undo()
    assert checkpoint.load(folder / "last.pt")["data"]["value"] == 1.0
    assert not [file for file in folder.iterdir() if file.name == ".last.pt.tmp"]


def test_file_system_without_links(folder, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    writer = checkpoint.Writer(folder)
    writer.write(content(1.0), is_best=True)
    writer.wait()
    assert checkpoint.load(folder / "best.pt")["data"]["value"] == 1.0


def test_full_disk_in_training(train, few_digits, tmp_path):
    """Files may grow to 30 kB, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    run_dir = tmp_path / "run"
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(
            ConfigError, match=r"cannot write the checkpoint .*: (the disk takes no|File too large)"
        ):
            train("debug=fast", "data.batch_size=40", run_dir=run_dir)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert summary(run_dir)["status"] == "failed"
    assert not list((run_dir / "checkpoints").iterdir())


def test_truncations_and_flips(folder):
    """A file cut anywhere, or with a bit turned in the tensors, is never taken for a good one."""
    path = folder / "last.pt"
    checkpoint.save(content(1.0), path)
    raw = path.read_bytes()
    for length in range(0, len(raw), 997):
        path.write_bytes(raw[:length])
        with pytest.raises(ConfigError, match="is damaged"):
            checkpoint.load(path)
    position = raw.index(torch.full((4,), 1.0).numpy().tobytes())
    path.write_bytes(raw[:position] + b"\1" + raw[position + 1 :])
    with pytest.raises(ConfigError, match="is damaged: its check sums are wrong"):
        checkpoint.load(path)


def test_state_that_cannot_be_read_back(train, few_digits, tmp_path, monkeypatch):
    """It is noticed at the first checkpoint, not when the run is over and its test is lost."""
    step = torch.optim.SGD.step

    def step_and_keep_an_array(self, closure=None):
        step(self, closure)
        self.state[self.param_groups[0]["params"][0]]["history"] = numpy.zeros(2)

    monkeypatch.setattr(torch.optim.SGD, "step", step_and_keep_an_array)
    overrides = ("debug=fast", "data.batch_size=40", "trainer.limit_train_steps=4",
                 "trainer.eval_every_steps=2")  # fmt: skip
    with pytest.raises(
        ConfigError, match=r"holds torch\.optim\.sgd\.SGD state \S+ history, a numpy"
    ):
        train(*overrides, run_dir=tmp_path / "run")
    assert summary(tmp_path / "run")["steps"] == 2
    train(*overrides, "trainer.checkpoint=false", run_dir=tmp_path / "unsaved")
    assert summary(tmp_path / "unsaved")["status"] == "completed"
