"""The report as a W&B run: offline, and against a server that speaks the same protocol."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import report
from tests.analysis.run_directories import write_run

SERVER = shutil.which("openwandb") or os.environ.get("OPENWANDB")
KEY = "local" + 40 * "0"


@pytest.fixture
def sweep_of_two(tmp_path):
    for seed in (0, 1):
        for optim in ("sgd_cosine", "adam_constant"):
            write_run(tmp_path / "sweep" / f"{optim}{seed}", optim, seed, wandb={"group": "g"})
    return tmp_path / "sweep"


@pytest.mark.slow
def test_offline_without_an_account(sweep_of_two, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert report.main([str(sweep_of_two), "--wandb"]) == 0
    assert "W&B summary run, offline: " in capsys.readouterr().out
    assert list((sweep_of_two / "wandb").glob("offline-run-*/run-report-*.wandb"))


def test_disabled_says_so(sweep_of_two, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert report.main([str(sweep_of_two), "--wandb"]) == 1
    assert capsys.readouterr().err == "error: WANDB_MODE=disabled: nothing was sent\n"


@pytest.fixture
def server(tmp_path):
    """A W&B-compatible server on loopback; its address."""
    if SERVER is None:
        pytest.skip("openwandb is not installed (pip install openwandb, or OPENWANDB=path to it)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [SERVER, "serve", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(
        [*command, "--data-dir", str(tmp_path / "server")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        address = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                with urllib.request.urlopen(address):
                    break
            except OSError:
                time.sleep(0.2)
        yield address
        process.terminate()


@pytest.mark.slow
def test_a_real_client_and_a_real_server(server, sweep_of_two):
    root = Path(report.__file__).parent
    done = subprocess.run(
        [sys.executable, str(root / "report.py"), str(sweep_of_two), "--wandb"],
        env={**os.environ, "WANDB_BASE_URL": server, "WANDB_API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert f"W&B summary run: {server}/" in done.stdout
    query = """query { project(name: "p", entityName: "default") {
        runs { edges { node { name config summaryMetrics } } } } }"""
    request = urllib.request.Request(
        f"{server}/graphql",
        data=json.dumps({"query": query}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        answer = json.load(response)
    (edge,) = answer["data"]["project"]["runs"]["edges"]
    summary = json.loads(edge["node"]["summaryMetrics"])
    assert edge["node"]["name"].startswith("report-")
    assert json.loads(edge["node"]["config"])["candidate"]["value"] == "report"
    assert summary["report/best"] == "sgd_cosine"
    assert "sgd_cosine has the best mean test/accuracy" in summary["report/claims"]
