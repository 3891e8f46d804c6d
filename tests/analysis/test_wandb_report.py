"""The report as a W&B run: offline, and against a server that speaks the same protocol."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.conftest import ROOT

SERVER = shutil.which("openwandb") or os.environ.get("OPENWANDB")
KEY = "local" + 40 * "0"


@pytest.mark.slow
def test_offline_without_an_account(sweep, monkeypatch, run_report):
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = sweep(seeds=range(2), wandb={"group": "g"})
    assert "W&B summary run, offline: " in run_report(folder, "--wandb")[0]
    assert list((folder / "wandb").glob("offline-run-*/run-report-*.wandb"))


def test_disabled_says_so(sweep, monkeypatch, refused):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    said = refused(sweep(seeds=range(2)), "--wandb")
    assert said == "error: WANDB_MODE=disabled: nothing was sent\n"


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


def client(server, *command):
    """Run a command of the project, or W&B's own, as a client of ``server``; its output."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "WANDB_BASE_URL": server, "WANDB_API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def runs_on(server, project):
    """What the server knows of a project's runs: name, config and summary, by W&B's id."""
    query = (
        f'query {{ project(name: "{project}", entityName: "default") {{ runs {{ edges {{ node '
        "{ name displayName tags config } } } } }"
    )
    request = urllib.request.Request(
        f"{server}/graphql",
        data=json.dumps({"query": query}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        edges = json.load(response)["data"]["project"]["runs"]["edges"]
    nodes = [edge["node"] for edge in edges]
    for node in nodes:
        config = json.loads(node["config"])
        node["config"] = {key: entry["value"] for key, entry in config.items() if key != "_wandb"}
        address = f"{server}/files/default/{project}/{node['name']}/wandb-summary.json"
        with urllib.request.urlopen(address) as response:
            node["summary"] = json.load(response)
    return {node["name"]: node for node in nodes}


def files_of(server, run_id):
    with urllib.request.urlopen(f"{server}/api/v1/runs/{run_id}/files") as response:
        return [file["name"] for file in json.load(response)["files"]]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_run_of_a_study_and_its_report_on_a_server(server, tmp_path, data_root, mode):
    """Offline runs say the same once ``wandb sync`` has sent them."""
    run_dir = tmp_path / "adamw-tune-000"
    client(
        server, "train.py", "debug=fast", f"wandb.mode={mode}", "wandb.project=q",
        "wandb.group=a_study", "wandb.candidate=adamw", "wandb.job_type=tune", "wandb.tags=[adamw]",
        f"data.root={data_root}", f"hydra.run.dir={run_dir}",
    )  # fmt: skip
    if mode == "offline":
        (folder,) = (run_dir / "wandb").glob("offline-run-*")
        client(server, "-m", "wandb", "sync", folder)
    assert f"W&B summary run: {server}/" in client(server, "report.py", run_dir, "--wandb")
    summary = json.loads((run_dir / "summary.json").read_text())
    runs = runs_on(server, "q")
    run = runs.pop(summary["wandb"]["id"])
    assert run["displayName"] == "adamw-tune-000"
    assert run["tags"] == ["adamw", "LightCNN", "mnist5k", "SGD"]
    assert run["config"]["candidate"] == "adamw"
    assert run["config"]["wandb"]["group"] == "a_study"
    assert run["config"]["wandb"]["job_type"] == "tune"
    assert run["config"]["optimizer"]["_target_"] == "torch.optim.SGD"
    assert run["summary"]["test/accuracy"] == pytest.approx(summary["test/accuracy"])
    assert run["summary"]["best"] == summary["best"]
    assert run["summary"]["val/accuracy"] == {"max": pytest.approx(summary["best"]["value"])}
    files = files_of(server, summary["wandb"]["id"])
    assert any(name.startswith("media/table/test/confusion_matrix_table_") for name in files)

    ((report_id, run),) = runs.items()
    assert report_id.startswith("report-")
    assert run["config"]["candidate"] == "report"
    assert run["summary"]["report/best"] == "all runs"
    assert "The mean test accuracy of all runs is" in run["summary"]["report/claims"]
    files = files_of(server, report_id)
    assert {"report.csv", "report.html"} <= set(files)
    for folder in ("media/html/report/page_", "media/table/report/candidates_"):
        assert any(name.startswith(folder) for name in files), files
