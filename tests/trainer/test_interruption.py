"""Signals stop a real process within seconds; it saves its state and sets its exit code."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from PIL import Image

from core.errors import Interrupted
from core.temporary import PREFIX, temporary_folder
from tests.conftest import QUIET, ROOT
from tests.trainer.interrupting import assert_same_run, events, summary
from tests.trainer.processes import descendants, is_running, wait_until
from trainer.signals import listening

LONG = (*QUIET, "trainer.max_epochs=500", "trainer.log_every_steps=5", "data.batch_size=50")


@pytest.fixture
def start_training(data_root, tmp_path):
    """Return a function that starts train.py in the background, and waits until it trains."""
    processes = []

    def start(*overrides, wait_for="run/metrics.jsonl"):
        flags = [word for word in overrides if word.startswith("-")]
        settings = [*LONG, f"data.root={data_root}", f"hydra.run.dir={tmp_path}/run"]
        settings += [word for word in overrides if word not in flags]
        command = [sys.executable, str(ROOT / "train.py"), *flags, *settings]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        wait_until(lambda: size(tmp_path / wait_for) or process.poll() is not None)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


@pytest.mark.parametrize("was_signalled", [True, False])
def test_peer_failure_after_stop_signal_is_an_interruption(was_signalled):
    def lose_peer() -> None:
        with listening() as interruption, interruption.defer():
            if was_signalled:
                os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("gloo/transport: closed")

    with pytest.raises(Interrupted if was_signalled else RuntimeError):
        lose_peer()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_signal_saves_state_and_sets_exit_code(start_training, tmp_path, number):
    process = start_training("resume=auto")
    process.send_signal(number)
    sent = time.monotonic()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert time.monotonic() - sent < 20
    assert f"interrupted by {number.name}" in output
    assert "Traceback" not in output
    assert summary(tmp_path / "run")["status"] == "interrupted"
    steps = [event["step"] for event in events(tmp_path / "run") if "train/loss" in event]
    assert steps == sorted(set(steps))
    assert summary(tmp_path / "run")["steps"] >= steps[-1]


@pytest.mark.slow
def test_interrupted_sweep_resumes(start_training, tmp_path):
    """The interrupted sweep prints its table of jobs; the same command then finishes it."""
    directory = tmp_path / "sweep"
    sweep = ("-m", "seed=0,1", f"hydra.sweep.dir={directory}", "resume=auto")
    process = start_training(*sweep, wait_for="sweep/0/metrics.jsonl")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "interrupted" in output.split("Sweep")[1]
    assert not (directory / "1").exists()
    steps_done = summary(directory / "0")["steps"]

    process = start_training(
        *sweep, f"trainer.limit_train_steps={steps_done + 5}", wait_for="sweep/1/summary.json"
    )
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    records = [summary(directory / name) for name in "01"]
    assert [record["status"] for record in records] == ["completed", "completed"]
    assert [record["steps"] for record in records] == [steps_done + 5, steps_done + 5]

    before = [(directory / name / "summary.json").stat().st_mtime_ns for name in "01"]
    process = start_training(
        *sweep, f"trainer.limit_train_steps={steps_done + 5}", wait_for="sweep/1/summary.json"
    )
    output, _ = process.communicate(timeout=120)
    assert output.count("completed") >= 2
    assert before == [(directory / name / "summary.json").stat().st_mtime_ns for name in "01"]


@pytest.mark.slow
def test_killed_parallel_sweep_resumes(start_training, tmp_path):
    """Workers save and exit when the sweep is killed; the same command then finishes it."""
    pytest.importorskip("joblib", reason="needs requirements-joblib.txt")
    directory = tmp_path / "sweep"
    sweep = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,1,2,3")
    sweep += (f"hydra.sweep.dir={directory}", "resume=auto")
    process = start_training(*sweep, wait_for="sweep/1/metrics.jsonl")
    wait_until(lambda: size(directory / "0" / "metrics.jsonl"))
    process.kill()
    process.wait()
    wait_until(lambda: all(is_free(directory / job) for job in "01"))
    stopped = [summary(directory / job) for job in "01"]
    assert [job["status"] for job in stopped] == ["interrupted", "interrupted"]
    assert not (directory / "2").exists()
    process = start_training(*sweep, "trainer.limit_train_steps=5", wait_for="sweep/3/summary.json")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert [summary(directory / job)["status"] for job in "0123"] == ["completed"] * 4


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_killed_sweep_resumes_remaining_jobs(start_training, tmp_path, devices):
    """After SIGKILL in the third of four jobs, the same command runs only what is left.

    The killed job ends bit-identical to an uninterrupted one.
    """
    directory = tmp_path / "sweep"
    run = (
        "data.batch_size=50",
        "trainer.max_steps=60",
        "trainer.log_every_steps=1",
        "trainer.checkpoint_every_steps=10",
        f"trainer.devices={devices}",
    )
    sweep = ("-m", "seed=0,1", "model.num_classes=10,7")  # 7 fails
    sweep += (*run, f"hydra.sweep.dir={directory}", "resume=auto")
    process = start_training(*sweep, wait_for="sweep/2/checkpoints/last.pt")
    process.kill()
    process.wait()
    assert [summary(directory / name)["status"] for name in "01"] == ["completed", "failed"]
    assert not (directory / "3").exists()
    wait_until(lambda: is_free(directory / "2"))
    saved, before = events(directory / "2"), os.stat(directory / "0" / "metrics.jsonl").st_mtime_ns

    process = start_training(*sweep, wait_for="sweep/3/summary.json")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    records = [summary(directory / name) for name in "0123"]
    assert [r["status"] for r in records] == ["completed", "failed", "completed", "failed"]
    assert before == os.stat(directory / "0" / "metrics.jsonl").st_mtime_ns
    assert output.count("model.num_classes and data=mnist5k do not fit") >= 2  # tried again
    steps = [event["step"] for event in events(directory / "2") if "train/loss" in event]
    assert steps == list(range(1, records[2]["steps"] + 1))
    kept = [event for event in events(directory / "2")[: len(saved)] if event in saved]
    assert len(kept) >= 10  # events from before the kill, not recomputed
    table = output[output.rindex("Sweep") :]
    assert table.count("completed") == 2
    assert table.count("failed") == 2
    start_training(*run, "seed=1").communicate(timeout=120)
    assert_same_run(tmp_path / "run", directory / "2")


@pytest.mark.slow
@pytest.mark.parametrize("node", [0, 1])
def test_ctrl_c_on_one_node_stops_both(start_training, tmp_path, node):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = ("trainer.num_nodes=2", f"trainer.rdzv_endpoint=127.0.0.1:{port}")
    nodes = [start_training(*settings, wait_for="."), start_training(*settings)]
    nodes[node].send_signal(signal.SIGINT)
    for other in nodes:
        output, _ = other.communicate(timeout=60)
        assert other.returncode == 128 + signal.SIGINT
        assert "interrupted by SIGINT" in output
    assert summary(tmp_path / "run")["status"] == "interrupted"


@pytest.fixture
def temporary_root(monkeypatch):
    """An empty TMPDIR; its path is short, since paths of Unix sockets are limited."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(folder)


@pytest.fixture
def images(tmp_path):
    """A folder of 40 images in two classes."""
    for number in range(40):
        folder = tmp_path / "images" / "train" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12), (number, 0, 0)).save(folder / f"{number}.png")
    return tmp_path / "images"


def assert_all_end(pids: list[int]) -> None:
    """Assert that the processes end within two minutes, and kill those that do not.

    A child needs up to ten seconds: one to notice, seven to save, then SIGKILL. The rest is margin
    for busy machines; on their own, the children of these tests would run for longer.
    """
    try:
        wait_until(lambda: not any(map(is_running, pids)))
    finally:
        for pid in filter(is_running, pids):
            os.kill(pid, signal.SIGKILL)


TWO_PROCESSES = ("trainer.devices=2", "data=image_folder", "data.resident=false",
                 "data.num_workers=1", "data.batch_size=4", "model=customcnn")  # fmt: skip
PARALLEL_SWEEP = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,1")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        # two processes with a data worker each
        pytest.param(TWO_PROCESSES, {"spawn_main": 4, "wandb-core": 1}, id="processes"),
        pytest.param(PARALLEL_SWEEP, {"LokyProcess": 2, "wandb-core": 2}, id="sweep"),
    ],
)
def test_children_end_when_parent_is_killed(
    start_training, images, temporary_root, tmp_path, overrides, expected
):
    """The next launch removes the temporary folders that this one and W&B leave behind."""
    if overrides is PARALLEL_SWEEP:
        pytest.importorskip("joblib", reason="needs requirements-joblib.txt")
    where = "hydra.sweep.dir=sweep" if overrides is PARALLEL_SWEEP else f"data.root={images}"
    settings = (where, "wandb.mode=offline", "trainer.max_epochs=50_000")
    process = start_training(*overrides, *settings, wait_for=".")

    def is_complete() -> bool:
        counts = {name: len(descendants(process.pid, name)) for name in expected}
        return all(counts[name] >= count for name, count in expected.items())

    wait_until(lambda: is_complete() or process.poll() is not None, seconds=600)
    assert process.poll() is None, process.stdout.read()
    pids = descendants(process.pid, "")
    process.kill()
    process.wait()
    assert_all_end(pids)
    assert list(temporary_root.glob(f"{PREFIX}*"))
    with temporary_folder() as own:
        assert [str(folder) for folder in temporary_root.glob(f"{PREFIX}*")] == [own]


ORPHAN = """
import multiprocessing, os, signal, time
from data.sample_reader import begin_worker
from core.parent import end_with_parent

def child():
    parent = os.getppid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    BEFORE
    print(os.getpid(), flush=True)
    while os.getppid() == parent:
        time.sleep(0.1)
    AFTER
    time.sleep(600)

if __name__ == "__main__":
    multiprocessing.set_start_method("METHOD")
    process = multiprocessing.Process(target=child)
    process.start()
    process.join()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("before", "after", "method"),
    [
        pytest.param("end_with_parent(saves=True)", "", "fork", id="hangs"),
        pytest.param("", "begin_worker(0)", "fork", id="data worker that is still starting"),
        # its parent is a fork server, the default since Python 3.14
        pytest.param("begin_worker(0)", "", "forkserver", id="data worker of a server"),
    ],
)
def test_hanging_child_ends_when_parent_is_killed(tmp_path, before, after, method):
    script = ORPHAN.replace("BEFORE", before).replace("AFTER", after).replace("METHOD", method)
    (tmp_path / "orphan.py").write_text(script)
    command = [sys.executable, str(tmp_path / "orphan.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
        if method == "forkserver":
            # the child looks for its parent's process id, which a zombie keeps until reaped
            parent.wait()
        assert_all_end([child])


def is_free(run_dir: Path) -> bool:
    """Whether no process holds the run's lock; workers save and exit after their parent."""
    with (run_dir / ".lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
