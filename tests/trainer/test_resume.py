"""A run that was interrupted and resumed is bit for bit the run that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import weakref
from unittest.mock import patch

import numpy
import pytest
import torch
import yaml
from PIL import Image

from core.errors import ConfigError, Interrupted, RunInUse
from core.job import Job
from core.run_directory import read_config
from core.same_run import finished_value
from data.loader import Loader
from models.lightcnn import LightCNN
from tests.conftest import QUIET
from tests.trainer.interrupting import (
    SHORT,
    Killed,
    assert_equal,
    assert_same_run,
    checkpoint_of,
    events,
    killed_at,
    signal_at,
    summary,
)
from trainer.checkpoint.start import find
from trainer.loggers.run_files import keep_events

pytestmark = pytest.mark.usefixtures("few_digits")

EVERYTHING = (
    "model.dropout=0.2",
    "objective.mixup_alpha=0.4",
    "objective.cutmix_alpha=1.0",
    "data.augment=[{_target_: data.augment.RandomAffine},{_target_: data.augment.Cutout,size: 4}]",
    "trainer.ema_decay=0.9",
    "trainer.accumulate_steps=2",
    "trainer.clip_grad_norm=1",
)


def test_what_a_model_of_its_own_draws_is_the_same(train, resumable, monkeypatch):
    """From whatever generator: draws depend on the position in the run alone."""
    forward = LightCNN.forward

    def noisy(self, images):
        noise = random.random() + numpy.random.normal() + torch.randn_like(images)
        return forward(self, images + 0.01 * noise)

    monkeypatch.setattr(LightCNN, "forward", noisy)
    whole = resumable((7,), *SHORT)
    losses = [event["train/loss"] for event in events(whole) if "train/loss" in event]
    again = train(*SHORT, "trainer.eval_every_steps=1")  # evaluations draw, too, and change nothing
    assert losses == [event["train/loss"] for event in events(again) if "train/loss" in event]


RECIPES = {
    "sgd": (*EVERYTHING, "optim=sgd_cosine"),
    "adamw": (*EVERYTHING, "optim=adamw_warmup_cosine"),
    "schedule_free": (*EVERYTHING, "optim=schedulefree_adamw", "scheduler=one_cycle",
                      "optimizer.warmup_steps=3", "trainer.ema_decay=null"),
    "muon": (*EVERYTHING, "optim=muon_warmup_cosine", "scheduler=polynomial"),
    "lbfgs": ("optim=lbfgs_constant", "optimizer.max_iter=2"),
    "sam": ("optim=sam_cosine",),
    "sophia": ("optim=sophia_warmup_cosine", "optimizer.update_period=2"),
    "swa": ("trainer.average=swa", "trainer.swa_start=0.4", "trainer.swa_every_steps=2"),
    "schedules": ("scheduler=plateau", "scheduler.patience=0", "optimizer=adamw",
                  "scheduler@momentum_schedule=cosine",
                  "scheduler@weight_decay_schedule=cosine"),
}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
def test_bit_exact(resumable, recipe):
    """Interrupted after an evaluation and, in the second epoch, between two lines of the log."""
    resumable((4, 7), *SHORT, *RECIPES[recipe])


def test_carried_state(resumable, tmp_path):
    """Of an LSTM, in the middle of the text and over the end of an epoch."""
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{number} to be or not to be\n" for number in range(120)))
    overrides = (*SHORT, "model=lstm", "model.width=16", "model.dropout=0.2", "data=text_file",
                 f"data.path={text}", "data.batch_size=8", "data.context_length=64",
                 "trainer.accumulate_steps=2", "trainer.max_steps=16")  # fmt: skip
    whole = resumable((3, 10), *overrides)
    assert checkpoint_of(whole)["data"]["carried"]["carried"].any()
    assert 1 < summary(whole)["epochs"] < 10


@pytest.fixture
def images(tmp_path):
    """A folder of 60 images in two classes."""
    random = numpy.random.default_rng(0)
    for number in range(60):
        folder = tmp_path / "images" / "train" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (20, 24, 3), numpy.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "images"


STREAMED = ("data=image_folder", "data.image_size=[12,12]", "data.resident=false",
            "data.batch_size=10", "model=customcnn")  # fmt: skip


def test_data_loader_workers(resumable, images):
    """Random crops and flips are those of the run that was left alone."""
    overrides = (*SHORT, *STREAMED, "data.num_workers=2", "objective.mixup_alpha=0.4",
                 f"data.root={images}")  # fmt: skip
    resumable((7,), *overrides)


def test_other_streamed_images_are_refused(train, images):
    """Nothing is read again but names and sizes, so all files count; the folder may move."""
    small = (*STREAMED, "data.num_workers=0", "debug=fast")
    run_dir = train(*small, f"data.root={images}")
    images = images.rename(images.with_name("moved"))
    again = (*small, "resume=auto", "trainer.limit_train_steps=6", f"data.root={images}")
    file = images / "train" / "a" / "30.png"
    os.utime(file)
    train(*again, run_dir=run_dir)
    content = file.read_bytes()
    Image.new("RGB", (24, 20)).save(file)
    with pytest.raises(ConfigError, match=r"data\.root or data\.path differs from that of"):
        train(*again, run_dir=run_dir)
    file.write_bytes(content)
    file.rename(file.with_name("31.png"))
    with pytest.raises(ConfigError, match=r"data\.root or data\.path differs from that of"):
        train(*again, run_dir=run_dir)


def test_other_text_is_refused(train, tmp_path):
    """The settings are the same, the text is not."""
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be\n" * 400)
    small = ("model=transformer", "model.width=16", "model.num_layers=1", "data=text_file",
             f"data.path={text}", "debug=fast")  # fmt: skip
    run_dir = train(*small)
    text.write_text("to be or not to bo\n" * 400)
    with pytest.raises(ConfigError, match=r"data\.root or data\.path differs from that of"):
        train(*small, "resume=auto", "trainer.limit_train_steps=12", run_dir=run_dir)


def test_killed_between_checkpoints(train, tmp_path):
    """Events after the checkpoint are computed again, not doubled."""
    overrides = (*SHORT, "trainer.log_every_steps=1", "trainer.checkpoint_every_steps=3")
    whole = train(*overrides)
    killed = tmp_path / "killed"
    with killed_at(8), pytest.raises(Killed):
        train(*overrides, run_dir=killed)
    assert len(events(killed)) > checkpoint_of(killed)["num_events"]
    assert_same_run(whole, train(*overrides, "resume=auto", run_dir=killed))


def test_a_resumed_run_holds_no_list_of_its_events(train, tmp_path, monkeypatch):
    """A long run has more of them than are good in memory at once."""

    class Event(dict):
        """A dict that can be referred to weakly."""

    references = []

    def watched(file, count):
        for event in map(Event, keep_events(file, count)):
            references.append(weakref.ref(event))
            yield event
            assert sum(reference() is not None for reference in references) <= 2

    overrides = (*SHORT, "trainer.log_every_steps=1")
    with signal_at(6), pytest.raises(Interrupted):
        train(*overrides, run_dir=tmp_path / "run")
    monkeypatch.setattr("trainer.loggers.run_log.keep_events", watched)
    train(*overrides, "resume=auto", run_dir=tmp_path / "run")
    assert len(references) > 2


def test_interrupted_evaluation(train, tmp_path):
    """It is begun again, and nothing is recorded twice."""
    overrides = (*SHORT, "data.eval_batch_size=10", "optim=schedulefree_adamw")
    whole = train(*overrides)
    run_dir = tmp_path / "evaluating"
    evaluations = 0

    def signal_in_evaluation(self, *arguments):
        nonlocal evaluations
        evaluations += 1
        for index, batch in enumerate(evaluate(self, *arguments)):
            if evaluations == 2 and index == 1:
                os.kill(os.getpid(), signal.SIGUSR1)
            yield batch

    evaluate = Loader.evaluate
    with patch.object(Loader, "evaluate", signal_in_evaluation), pytest.raises(Interrupted):
        train(*overrides, run_dir=run_dir)
    assert checkpoint_of(run_dir)["counters"]["evaluated_at"] == 4
    assert summary(run_dir)["steps"] == 8
    assert_same_run(whole, train(*overrides, "resume=auto", run_dir=run_dir))


def test_lost_best_weights(train, interrupted, tmp_path):
    """A later checkpoint does not pass for them."""
    with signal_at(6), pytest.raises(Interrupted):
        train(*SHORT, run_dir=tmp_path / "in_parts")
    (tmp_path / "in_parts" / "checkpoints" / "best.pt").unlink()
    run_dir = interrupted([], *SHORT)
    counters = checkpoint_of(run_dir, "best")["counters"]
    assert counters["step"] == counters["best"]["step"] == summary(run_dir)["best"]["step"] > 6
    assert "the best weights, of step 4, are lost" in (run_dir / "train.log").read_text()


def test_longer(train, tmp_path):
    """A run that was limited goes on to a later limit, the schedule being the same throughout."""
    whole = train(*SHORT)
    run_dir = tmp_path / "halved"
    train(*SHORT, "trainer.limit_train_steps=4", run_dir=run_dir)
    assert summary(run_dir)["steps"] == 4
    train(*SHORT, "resume=auto", "trainer.log_every_steps=2", run_dir=run_dir)
    assert_equal(checkpoint_of(whole)["model"], checkpoint_of(run_dir)["model"], "model")
    assert summary(run_dir)["data_order_hash"] == summary(whole)["data_order_hash"]


def test_new_run_from_another(train):
    """``resume=PATH``: a run of its own that begins at the checkpoint, with its best weights."""
    first = train(*SHORT, "trainer.limit_train_steps=4")
    before = events(first)
    for source in (first, first / "checkpoints" / "last.pt"):
        run_dir = train(*SHORT, f"resume='{source}'")
        assert events(run_dir)[0]["step"] > 4
        assert summary(run_dir)["best"]["step"] in (4, 8, 9)
        assert summary(run_dir)["wandb"]["id"] != summary(first)["wandb"]["id"]
    assert events(first) == before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "resume=nowhere: there is no such file or run directory"),
        ("{tmp}", "resume=.* has no checkpoint"),
        ("{tmp}/file", "is damaged"),
    ],
)
def test_nothing_to_resume(train, tmp_path, source, message):
    (tmp_path / "file").write_text("no checkpoint")
    with pytest.raises(ConfigError, match=message):
        train(*SHORT, f"resume={source.format(tmp=tmp_path)}")


def test_refused(train):
    """Another run in the same directory, or another run under the same name."""
    run_dir = train(*SHORT)
    files = ("summary.json", "config.yaml", "metrics.jsonl", "checkpoints/last.pt")
    before = [(run_dir / name).read_bytes() for name in files]
    with pytest.raises(RunInUse, match="already holds a run: add resume=auto"):
        train(*SHORT, run_dir=run_dir)
    for change in ("trainer.max_steps=12", "optimizer.lr=0.2", "seed=1", "model.dropout=0.5"):
        name = change.split("=")[0]
        with pytest.raises(ConfigError, match=rf"{name} was .*resume_changes=\[{name}\]"):
            train(*SHORT, change, "resume=auto", run_dir=run_dir)
    with pytest.raises(ConfigError, match=r"model\._target_ was .*; start a new run$"):
        train(*SHORT, "model=customcnn", "resume=auto", run_dir=run_dir)
    assert [(run_dir / name).read_bytes() for name in files] == before


def test_values_of_the_environment_are_not_compared(train):
    """It is said of which settings, those excepted that may change."""
    run_dir = train(*SHORT, "trainer.limit_train_steps=1")
    config = read_config(run_dir / "config.yaml") | {"resume": "auto"}
    assert find(config, Job(run_dir=str(run_dir)), is_restart=False).notes == []
    config["model"]["dropout"] = config["data"]["root"] = "${oc.env:NAME}"
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    job = Job(run_dir=str(run_dir), recordable=config)
    (note,) = find(config, job, is_restart=False).notes
    assert note.startswith("model.dropout: values from the environment are not recorded")


def test_directory_in_use(train, tmp_path):
    code = (
        "import fcntl,sys; f=open(sys.argv[1],'w'); fcntl.lockf(f,2); print(1,flush=True); input()"
    )
    run_dir = tmp_path / "busy"
    run_dir.mkdir()
    command = [sys.executable, "-c", code, str(run_dir / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline()
        with pytest.raises(RunInUse, match="another process is running in"):
            train(*SHORT, "resume=auto", run_dir=run_dir)
        other.communicate(b"\n")
    assert {file.name for file in run_dir.iterdir()} == {".lock"}


def test_finished_value(composed, train):
    run_dir = train(*SHORT)
    config = composed(*QUIET, *SHORT, "resume=auto")
    job = Job(run_dir=str(run_dir))
    config["data"]["root"] = "elsewhere"
    assert finished_value(config, job) is None
    config["data"]["root"] = read_config(run_dir / "config.yaml")["data"]["root"]
    assert finished_value(config, job) == summary(run_dir)["best"]["value"]
    assert finished_value(config | {"resume": None}, job) is None
    for part, change in (("optimizer", {"lr": 0.5}), ("trainer", {"limit_train_steps": 8})):
        assert finished_value(config | {part: config[part] | change}, job) is None
    for record in ({"steps": 8}, {"status": "running"}):  # killed after its end was moved
        (run_dir / "summary.json").write_text(json.dumps(summary(run_dir) | record))
        assert finished_value(config, job) is None
    for status, value in (("diverged", float("-inf")), ("failed", None)):
        (run_dir / "summary.json").write_text(json.dumps(summary(run_dir) | {"status": status}))
        assert finished_value(config, job) == value


def test_commands_on_a_run_that_is_there(command_here, data_root, tmp_path):
    """One that is refused or has nothing to do writes nothing, nor does Hydra."""
    few = ("train.py", *QUIET, "debug=fast", "monitor=val/loss", f"data.root={data_root}")

    def written():
        files = (file for file in (tmp_path / "run").rglob("*") if file.name != ".lock")
        return {file: file.stat().st_mtime_ns for file in files}

    assert command_here(*few, "hydra.run.dir=run").returncode == 0
    before = written()
    assert tmp_path / "run" / ".hydra" / "overrides.yaml" in before
    again = command_here(*few, "hydra.run.dir=run", "resume=auto")
    assert again.returncode == 0
    assert again.stdout.splitlines()[1] == "this run has already finished: nothing to do"
    refused = command_here(*few, "hydra.run.dir=run", "seed=7")
    assert refused.returncode == 1
    assert "already holds a run" in refused.stderr
    assert written() == before
