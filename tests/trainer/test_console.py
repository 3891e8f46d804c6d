"""Console output: progress, warnings, results, and how to resume."""

import io
import json
import os
import re
import shlex
import time

import pytest

from core.errors import ConfigError, Interrupted
from core.job import Job
from tests.conftest import QUIET
from tests.trainer.interrupting import full_disk, signal_at
from train import run
from trainer.loggers.console import PLAIN_SECONDS, Console


@pytest.fixture
def stream():
    """The stream that the console writes to."""
    return io.StringIO()


@pytest.fixture
def console(tmp_path, stream):
    return Console(Job(str(tmp_path)), show_progress=True, batch_size=300, stream=stream)


def test_full_disk_raises(console):
    with full_disk(), pytest.raises(ConfigError, match=r"cannot write .*/train.log: File too"):
        console.print("step 1")


def test_fifo_as_log_is_rejected(console, tmp_path):
    """Opening a FIFO in an untrusted run directory would block until somebody reads it."""
    os.mkfifo(tmp_path / "train.log")
    with pytest.raises(ConfigError, match=r"cannot write .*/train.log: No such device"):
        console.print("step 1")


@pytest.mark.parametrize(
    ("losses", "losses_shown"),
    [
        ({}, ""),
        ({"train/loss": 0.25}, "  loss 0.2500"),
        ({"train/gan/loss": 0.25, "train/other/loss": 3.0}, "  gan 0.2500  other 3.0000"),
    ],
)
def test_progress_line_without_terminal(console, stream, losses, losses_shown):
    """The line shows the loss of each phase."""
    console.log_event(0, {"step": 1, **losses, "optim/lr": 0.1})
    console.start_progress(10, 0)
    console.shown_at = console.started_at = time.monotonic() - PLAIN_SECONDS
    console.update_progress(5)
    line = rf"step 5/10  \d+ samples/s{re.escape(losses_shown)}  3\d s left\n"
    assert re.fullmatch(line, stream.getvalue())


@pytest.mark.parametrize(("num_threads", "load", "count"), [(2, 9.0, 1), (1, 9.0, 0), (2, 3.0, 0)])
def test_busy_machine_is_reported_once(console, stream, monkeypatch, num_threads, load, count):
    """Only with several threads, which would wait for each other."""
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    console.num_threads = num_threads
    for _ in range(2):
        console.say_if_busy()
    assert stream.getvalue().count("load 9 on 2 cores") == count


@pytest.mark.usefixtures("few_digits")
def test_interrupted_run_prints_command_to_resume(train, tmp_path, capsys):
    """It also prints the saved step and file; the resumed run prints where it starts."""
    run_dir = tmp_path / "a run"
    with signal_at(3), pytest.raises(Interrupted):
        train("debug=fast", "resume=auto", run_dir=run_dir)
    saved = f"step 3 of 4, in {run_dir}/checkpoints/last.pt"
    command = f"python train.py debug=fast \"hydra.run.dir='{run_dir}'\" resume=auto"
    printed = capsys.readouterr().out
    assert f"\nsaved          {saved}\ncontinue with  {command}\n" in printed
    assert "has no checkpoint yet: starting a new run" in printed
    assert command in (run_dir / "train.log").read_text()
    assert shlex.split(command)[3] == f"hydra.run.dir='{run_dir}'"
    train("debug=fast", "resume=auto", run_dir=run_dir)
    printed = capsys.readouterr().out
    assert f"resuming at step 3 of 4, from {run_dir}/checkpoints/last.pt\n" in printed
    assert "continue with" not in printed
    train("debug=fast", "resume=auto", "trainer.limit_train_steps=2", run_dir=run_dir)
    line = f"no more training: 4 updates were made, and the run ends after 2, from {run_dir}"
    assert line in capsys.readouterr().out


def test_printed_command_is_not_wrapped(tmp_path, stream, monkeypatch):
    """With a line break at the terminal's width, a pasted command would run only in part."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    job = Job(str(tmp_path), overrides=("trainer.max_steps=900", "seed=1"))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").touch()
    Console(job, True, batch_size=1, stream=stream).finalize({"status": "interrupted", "error": ""})
    assert stream.getvalue().splitlines()[-1] == f"continue with  {job.continuation}"


def test_sync_command_lists_all_parts_of_offline_run(console, stream, tmp_path, monkeypatch):
    first, second, other = (f"{tmp_path}/offline-run-{name}" for name in ("1-a", "2-a", "2-b"))
    for folder in (first, second, other):
        os.mkdir(folder)
    monkeypatch.setattr("trainer.loggers.console.result_rows", lambda *_: {})
    wandb = {"directory": second, "url": None}
    console.finalize({"status": "completed", "error": None, "steps": 1, "wandb": wandb})
    assert f"wandb leet {second}\n" in stream.getvalue()
    assert f"wandb sync {first} {second}\n" in stream.getvalue()


@pytest.mark.parametrize(
    ("world_size", "options"), [(2, "--standalone --nproc-per-node=2"), (4, "OPTIONS")]
)
def test_command_to_resume_under_torchrun(monkeypatch, tmp_path, world_size, options):
    """With several nodes, processes do not know torchrun's options, so a placeholder is printed."""
    sizes = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": 2}
    for name, value in {"TORCHELASTIC_RUN_ID": "none", **sizes}.items():
        monkeypatch.setenv(name, str(value))
    assert Job(str(tmp_path)).continuation.startswith(f"torchrun {options} train.py hydra.run.dir=")


@pytest.mark.usefixtures("few_digits")
def test_interrupted_run_without_checkpoint(train, capsys):
    with signal_at(2), pytest.raises(Interrupted):
        train("debug=fast", "trainer.checkpoint=false")
    assert "nothing was saved" in capsys.readouterr().out


@pytest.mark.usefixtures("few_digits")
def test_study_trial_writes_only_to_its_log(composed, data_root, tmp_path, capsys):
    config = composed(*QUIET, f"data.root={data_root}", "debug=fast")
    run(config, Job(run_dir=str(tmp_path), is_trial=True))
    assert capsys.readouterr().out == ""
    assert "Result" in (tmp_path / "train.log").read_text()


@pytest.mark.usefixtures("few_digits")
def test_unwritable_media_folder_raises(train, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "media").touch()
    with pytest.raises(ConfigError, match=r"cannot write .*/media/val_step_2: Not a directory"):
        train("debug=fast", run_dir=tmp_path / "run")


@pytest.mark.usefixtures("few_digits")
def test_partial_evaluation_is_reported(train):
    """Metrics of a part of a split look like those of the full split."""
    run_dir = train("debug=fast", "trainer.limit_eval_steps=4", "data.eval_batch_size=10")
    line = "trainer.limit_eval_steps: test on 40 of 60 samples\n"
    assert line in (run_dir / "train.log").read_text()
    counts = json.loads((run_dir / "summary.json").read_text())["num_evaluated"]
    assert counts == {"val": 30, "test": 40}
