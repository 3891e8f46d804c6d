"""A run that was interrupted and resumed is bit-identical to an uninterrupted one."""

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

RANDOM_AND_STATEFUL = (
    "model.dropout=0.2",
    "objective.mixup_alpha=0.4",
    "objective.cutmix_alpha=1.0",
    "data.augment=[{_target_: data.augment.RandomAffine},{_target_: data.augment.Cutout,size: 4}]",
    "trainer.ema_decay=0.9",
    "trainer.accumulate_steps=2",
    "trainer.clip_grad_norm=1",
)


def test_draws_of_a_model_depend_only_on_the_step(train, check_resume, monkeypatch):
    """This holds for the global generators of Python, numpy and torch."""
    forward = LightCNN.forward

    def forward_with_noise(self, images):
        noise = random.random() + numpy.random.normal() + torch.randn_like(images)
        return forward(self, images + 0.01 * noise)

    monkeypatch.setattr(LightCNN, "forward", forward_with_noise)
    uninterrupted = check_resume((7,), *SHORT)
    losses = [event["train/loss"] for event in events(uninterrupted) if "train/loss" in event]
    # evaluations draw as well, which must not change training
    repeated = train(*SHORT, "trainer.eval_every_steps=1")
    assert losses == [event["train/loss"] for event in events(repeated) if "train/loss" in event]


RECIPES = {
    "sgd": (*RANDOM_AND_STATEFUL, "optim=sgd_cosine"),
    "adamw": (*RANDOM_AND_STATEFUL, "optim=adamw_warmup_cosine"),
    "schedule_free": (*RANDOM_AND_STATEFUL, "optim=schedulefree_adamw", "scheduler=one_cycle",
                      "optimizer.warmup_steps=3", "trainer.ema_decay=null"),
    "muon": (*RANDOM_AND_STATEFUL, "optim=muon_warmup_cosine", "scheduler=polynomial"),
    "lbfgs": ("optim=lbfgs_constant", "optimizer.max_iter=2"),
    "sam": ("optim=sam_cosine",),
    "sophia": ("optim=sophia_warmup_cosine", "optimizer.update_period=2"),
    "swa": ("trainer.average=swa", "trainer.swa_start=0.4", "trainer.swa_every_steps=2"),
    "schedules": ("scheduler=plateau", "scheduler.patience=0", "optimizer=adamw",
                  "scheduler@momentum_schedule=cosine",
                  "scheduler@weight_decay_schedule=cosine"),
}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
def test_resume_is_bit_identical(check_resume, recipe):
    """Interrupted after an evaluation and, in the second epoch, between two logging steps."""
    check_resume((4, 7), *SHORT, *RECIPES[recipe])


def test_resume_restores_carried_state(check_resume, tmp_path):
    """An LSTM, interrupted in the middle of the text, and trained past the end of an epoch."""
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{number} to be or not to be\n" for number in range(120)))
    overrides = (*SHORT, "model=lstm", "model.width=16", "model.dropout=0.2", "data=text_file",
                 f"data.path={text}", "data.batch_size=8", "data.context_length=64",
                 "trainer.accumulate_steps=2", "trainer.max_steps=16")  # fmt: skip
    uninterrupted = check_resume((3, 10), *overrides)
    assert checkpoint_of(uninterrupted)["data"]["carried"]["carried"].any()
    assert 1 < summary(uninterrupted)["epochs"] < 10


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


def test_resume_with_data_workers_is_bit_identical(check_resume, images):
    """Random crops and flips in workers are those of the uninterrupted run."""
    overrides = (*SHORT, *STREAMED, "data.num_workers=2", "objective.mixup_alpha=0.4",
                 f"data.root={images}")  # fmt: skip
    check_resume((7,), *overrides)


def test_changed_image_files_are_rejected(train, images):
    """The fingerprint covers names and sizes of all files, not times; the folder may move."""
    small = (*STREAMED, "data.num_workers=0", "debug=fast")
    run_dir = train(*small, f"data.root={images}")
    images = images.rename(images.with_name("moved"))
    repeated = (*small, "resume=auto", "trainer.limit_train_steps=6", f"data.root={images}")
    file = images / "train" / "a" / "30.png"
    os.utime(file)
    train(*repeated, run_dir=run_dir)
    content = file.read_bytes()
    Image.new("RGB", (24, 20)).save(file)
    with pytest.raises(ConfigError, match=r"data\.root or data\.path differs from that of"):
        train(*repeated, run_dir=run_dir)
    file.write_bytes(content)
    file.rename(file.with_name("31.png"))
    with pytest.raises(ConfigError, match=r"data\.root or data\.path differs from that of"):
        train(*repeated, run_dir=run_dir)


def test_changed_text_is_rejected(train, tmp_path):
    """The settings are equal, but the file's content differs."""
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be\n" * 400)
    small = ("model=transformer", "model.width=16", "model.num_layers=1", "data=text_file",
             f"data.path={text}", "debug=fast")  # fmt: skip
    run_dir = train(*small)
    text.write_text("to be or not to bo\n" * 400)
    with pytest.raises(ConfigError, match=r"data\.root or data\.path differs from that of"):
        train(*small, "resume=auto", "trainer.limit_train_steps=12", run_dir=run_dir)


def test_run_killed_between_checkpoints_resumes_bit_identical(train, tmp_path):
    """Events after the last checkpoint are recomputed, not recorded twice."""
    overrides = (*SHORT, "trainer.log_every_steps=1", "trainer.checkpoint_every_steps=3")
    uninterrupted = train(*overrides)
    killed = tmp_path / "killed"
    with killed_at(8), pytest.raises(Killed):
        train(*overrides, run_dir=killed)
    assert len(events(killed)) > checkpoint_of(killed)["num_events"]
    assert_same_run(uninterrupted, train(*overrides, "resume=auto", run_dir=killed))


def test_resume_streams_recorded_events(train, tmp_path, monkeypatch):
    """A long run has too many events to hold all of them in memory."""

    class Event(dict):
        """A dict that supports weak references."""

    references = []

    def tracked_events(file, count):
        for event in map(Event, keep_events(file, count)):
            references.append(weakref.ref(event))
            yield event
            assert sum(reference() is not None for reference in references) <= 2

    overrides = (*SHORT, "trainer.log_every_steps=1")
    with signal_at(6), pytest.raises(Interrupted):
        train(*overrides, run_dir=tmp_path / "run")
    monkeypatch.setattr("trainer.loggers.run_log.keep_events", tracked_events)
    train(*overrides, "resume=auto", run_dir=tmp_path / "run")
    assert len(references) > 2


def test_interrupted_evaluation_is_repeated(train, tmp_path):
    """Nothing is recorded twice."""
    overrides = (*SHORT, "data.eval_batch_size=10", "optim=schedulefree_adamw")
    uninterrupted = train(*overrides)
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
    assert_same_run(uninterrupted, train(*overrides, "resume=auto", run_dir=run_dir))


def test_missing_best_checkpoint_is_replaced_by_a_later_best(train, train_interrupted, tmp_path):
    """The last checkpoint is not used in its place."""
    with signal_at(6), pytest.raises(Interrupted):
        train(*SHORT, run_dir=tmp_path / "in_parts")
    (tmp_path / "in_parts" / "checkpoints" / "best.pt").unlink()
    run_dir = train_interrupted([], *SHORT)
    counters = checkpoint_of(run_dir, "best")["counters"]
    assert counters["step"] == counters["best"]["step"] == summary(run_dir)["best"]["step"] > 6
    assert "the best weights, of step 4, are lost" in (run_dir / "train.log").read_text()


def test_run_continues_past_its_old_limit(train, tmp_path):
    """The weights equal those of an unlimited run: the limit does not change the schedule."""
    uninterrupted = train(*SHORT)
    run_dir = tmp_path / "halved"
    train(*SHORT, "trainer.limit_train_steps=4", run_dir=run_dir)
    assert summary(run_dir)["steps"] == 4
    train(*SHORT, "resume=auto", "trainer.log_every_steps=2", run_dir=run_dir)
    assert_equal(checkpoint_of(uninterrupted)["model"], checkpoint_of(run_dir)["model"], "model")
    assert summary(run_dir)["data_order_hash"] == summary(uninterrupted)["data_order_hash"]


def test_resume_from_path_starts_a_new_run(train):
    """``resume=PATH`` takes over the state and the best weights, but not the events or W&B id."""
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
def test_resume_from_unusable_path_raises(train, tmp_path, source, message):
    (tmp_path / "file").write_text("no checkpoint")
    with pytest.raises(ConfigError, match=message):
        train(*SHORT, f"resume={source.format(tmp=tmp_path)}")


def test_used_directory_and_changed_settings_are_rejected(train):
    """The existing run is left unchanged."""
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


def test_environment_values_are_not_compared(train):
    """A note names these settings, except those that may change freely."""
    run_dir = train(*SHORT, "trainer.limit_train_steps=1")
    config = read_config(run_dir / "config.yaml") | {"resume": "auto"}
    assert find(config, Job(run_dir=str(run_dir)), is_restart=False).notes == []
    config["model"]["dropout"] = config["data"]["root"] = "${oc.env:NAME}"
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    job = Job(run_dir=str(run_dir), recordable=config)
    (note,) = find(config, job, is_restart=False).notes
    assert note.startswith("model.dropout: values from the environment are not recorded")


def test_directory_in_use_is_rejected(train, tmp_path):
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


def test_finished_value_requires_same_settings_and_enough_steps(composed, train):
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
    for record in ({"steps": 8}, {"status": "running"}):  # killed after being extended
        (run_dir / "summary.json").write_text(json.dumps(summary(run_dir) | record))
        assert finished_value(config, job) is None
    for status, value in (("diverged", float("-inf")), ("failed", None)):
        (run_dir / "summary.json").write_text(json.dumps(summary(run_dir) | {"status": status}))
        assert finished_value(config, job) == value


def test_rejected_or_finished_command_writes_nothing(command_here, data_root, tmp_path):
    """This includes the files that Hydra writes."""
    arguments = ("train.py", *QUIET, "debug=fast", "monitor=val/loss", f"data.root={data_root}")

    def modification_times():
        files = (file for file in (tmp_path / "run").rglob("*") if file.name != ".lock")
        return {file: file.stat().st_mtime_ns for file in files}

    assert command_here(*arguments, "hydra.run.dir=run").returncode == 0
    before = modification_times()
    assert tmp_path / "run" / ".hydra" / "overrides.yaml" in before
    repeated = command_here(*arguments, "hydra.run.dir=run", "resume=auto")
    assert repeated.returncode == 0
    assert repeated.stdout.splitlines()[1] == "this run has already finished: nothing to do"
    rejected = command_here(*arguments, "hydra.run.dir=run", "seed=7")
    assert rejected.returncode == 1
    assert "already holds a run" in rejected.stderr
    assert modification_times() == before
