"""The real client against servers that hang or refuse, a killed backend, a full disk."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import QUIET, ROOT
from tests.trainer.interrupting import events, summary
from tests.trainer.processes import descendants, wait_until

pytestmark = pytest.mark.slow

STEPS = 60
# as in train.py, with less patience
HASTY = """
import runpy
import sys
from trainer import wandb_mirror
wandb_mirror.FINISH_TIMEOUT_SECONDS = 3
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def started(data_root, tmp_path):
    """``started("online", url)``: a run in the background, logging every update."""
    processes = []

    def start(mode: str, url: str = "http://127.0.0.1:9", *prefix: str) -> subprocess.Popen[str]:
        settings = [*QUIET[1:], f"wandb.mode={mode}", f"trainer.max_steps={STEPS}"]
        settings += ["trainer.log_every_steps=1", f"data.root={data_root}",
                     f"hydra.run.dir={tmp_path}/run"]  # fmt: skip
        inherited = dict(os.environ)
        inherited.pop("WANDB_SERVICE", None)  # of a backend that another test has started
        process = subprocess.Popen(
            [*prefix, sys.executable, "-c", HASTY, str(ROOT / "train.py"), *settings],
            env={**inherited, "PYTHONPATH": str(ROOT), "WANDB_BASE_URL": url,
                 "WANDB_API_KEY": "0" * 40, "OMP_NUM_THREADS": "1"},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def check(process: subprocess.Popen[str], run_dir: Path) -> None:
    """It completed in time, with complete records; the W&B run can be sent again."""
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert summary(run_dir)["status"] == "completed"
    assert summary(run_dir)["wandb"]["problem"]
    assert f"python -m trainer.wandb_sync {run_dir}" in output
    steps = [event["step"] for event in events(run_dir) if "train/loss" in event]
    assert steps == list(range(1, STEPS + 1))


@pytest.fixture
def hanging_server() -> Iterator[str]:
    """It accepts every connection and never answers."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connections.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    for connection in connections:
        connection.close()


def test_hanging_server(started, hanging_server, tmp_path):
    start = time.monotonic()
    check(started("online", hanging_server), tmp_path / "run")
    assert time.monotonic() - start < 60  # W&B itself would try for 90 s


def test_refused_connection(started, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    check(started("online", f"http://127.0.0.1:{port}"), tmp_path / "run")


def test_killed_backend(started, tmp_path):
    """SIGKILL to wandb's own process as soon as it serves the run."""
    process = started("offline")
    backends: list[int] = []

    def found() -> bool:
        backends[:] = descendants(process.pid, "wandb-core")
        return bool(backends and list((tmp_path / "run").glob("wandb/*/*.wandb")))

    wait_until(lambda: found() or process.poll() is not None)
    for pid in backends:
        os.kill(pid, signal.SIGKILL)
    check(process, tmp_path / "run")


def test_full_disk_under_wandb(started, tmp_path):
    """16 kB for W&B; the rest of the run directory is on another disk."""
    folder = tmp_path / "run" / "wandb"
    folder.mkdir(parents=True)
    mounting = f"mount -t tmpfs -o size=16k tmpfs '{folder}' && exec \"$@\""
    prefix = ("unshare", "--map-root-user", "--mount", "sh", "-c", mounting, "sh")
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount")
    check(started("offline", "http://127.0.0.1:9", *prefix), tmp_path / "run")
