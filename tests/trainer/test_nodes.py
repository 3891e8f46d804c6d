"""Restarts, several nodes, and runs that torchrun starts."""

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import train
from core.job import Job
from tests.conftest import ROOT
from tests.trainer.interrupting import events, summary
from trainer.distributed.launch import launch
from trainer.trainer import Trainer

THIS = __name__
TORCHRUN = str(Path(torch.__file__).parent / "distributed" / "run.py")


def fail_once(config, job):
    """Train; in the first attempt, rank 1 is killed or raises after the first checkpoint."""
    if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        after_step = Trainer.after_step

        def fail(trainer):
            after_step(trainer)
            if trainer.progress.step == 3:
                if config["wandb"]["project"] == "raise":
                    raise ValueError("no such luck")
                os.kill(os.getpid(), signal.SIGKILL)

        Trainer.after_step = fail
    return train.run(config, job)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "raise"])
def test_restart_continues_from_last_checkpoint(config, data_root, tmp_path, how):
    settings = ("debug=fast", f"data.root={data_root}", "trainer.progress=false")
    settings += ("trainer.devices=2", "trainer.max_restarts=1", f"wandb.project={how}")
    launch(fail_once, config(*settings), Job(str(tmp_path)))
    assert_restarted_once(tmp_path)
    assert "restarted after a failure" in (tmp_path / "train.log").read_text()
    reason = "ValueError: no such luck"
    assert (reason in (tmp_path / "rank_1.log").read_text()) == (how == "raise")


def assert_restarted_once(run_dir):
    """Assert that the run completed, and continued from its checkpoint instead of starting over."""
    found = summary(run_dir)
    assert (found["status"], found["steps"]) == ("completed", 4)
    steps = [event["step"] for event in events(run_dir) if "train/loss" in event]
    assert steps.count(1) == 1
    assert steps[-1] == 4


def run_two_nodes(start):
    """Call ``start(port)`` twice in parallel; return both results."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ThreadPoolExecutor() as pool:
        return [node.result() for node in [pool.submit(start, port) for _ in range(2)]]


@pytest.mark.slow
@pytest.mark.parametrize("uses_torchrun", [False, True])
def test_two_nodes_share_one_run_directory(command, data_root, tmp_path, uses_torchrun):
    arguments = ("debug=fast", "wandb.mode=disabled", f"data.root={data_root}")

    def start(port):
        endpoint = f"127.0.0.1:{port}"
        if uses_torchrun:
            rendezvous = ("--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", "--rdzv-id=job")
            return command(TORCHRUN, "--nnodes=2", *rendezvous, train.__file__, *arguments)
        nodes = ("trainer.num_nodes=2", f"trainer.rdzv_endpoint={endpoint}")
        return command("train.py", *arguments, *nodes)

    assert_one_run_directory(run_two_nodes(start), tmp_path)


def assert_one_run_directory(done, folder):
    assert {process.returncode for process in done} == {0}, done
    assert sum(process.stdout.count("Result") for process in done) == 1
    (run_dir,) = (folder / "outputs").glob("*/*")
    assert summary(run_dir)["world_size"] == 2
    assert (run_dir / "rank_1.log").exists()


def start_node(config, run_dir):
    """Run one of two nodes; called in a separate process."""
    launch(fail_once, json.loads(config), Job(run_dir))


@pytest.mark.slow
def test_both_nodes_restart_after_one_fails(config, data_root, tmp_path):
    """Only the node that failed counts the restart."""
    settings = ("debug=fast", f"data.root={data_root}", "trainer.progress=false")
    composed = config(*settings, "trainer.num_nodes=2", "trainer.max_restarts=1")

    def start(port):
        trainer = {**composed["trainer"], "rdzv_endpoint": f"127.0.0.1:{port}"}
        node = json.dumps({**composed, "trainer": trainer})
        code = f"import sys; from {THIS} import start_node; start_node(*sys.argv[1:])"
        arguments = [sys.executable, "-c", code, node, str(tmp_path)]
        return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=300)

    done = run_two_nodes(start)
    assert [node.returncode for node in done] == [0, 0], done
    assert_restarted_once(tmp_path)


@pytest.mark.slow
def test_torchrun_creates_one_run_directory(command, data_root, tmp_path):
    arguments = ("debug=fast", "wandb.mode=disabled", f"data.root={data_root}")
    done = command(TORCHRUN, "--nproc-per-node=2", train.__file__, *arguments)
    assert_one_run_directory([done], tmp_path)
