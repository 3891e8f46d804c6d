"""The report as a W&B run, offline and on a W&B-compatible server."""

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
def test_offline_report_needs_no_account(sweep, monkeypatch, run_report):
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = sweep(seeds=range(2), wandb={"group": "g"})
    assert "W&B summary run, offline: " in run_report(folder, "--wandb")[0]
    assert list((folder / "wandb").glob("offline-run-*/run-report-*.wandb"))


def test_wandb_option_with_disabled_wandb_is_an_error(sweep, monkeypatch, report_error):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    error = report_error(sweep(seeds=range(2)), "--wandb")
    assert error == "error: WANDB_MODE=disabled: nothing was sent\n"


@pytest.fixture
def server(tmp_path):
    """The address of a W&B-compatible server on loopback."""
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


def run_client(server, *command):
    """Run a Python script or module as a client of ``server`` and return its output."""
    result = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "WANDB_BASE_URL": server, "WANDB_API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def runs_on(server, project):
    """Return name, tags, config and summary of a project's runs on the server, by run id."""
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
def test_run_and_report_are_stored_on_the_server(server, tmp_path, data_root, mode):
    """Offline runs are stored the same way by ``wandb sync``."""
    run_dir = tmp_path / "adamw-tune-000"
    run_client(
        server, "train.py", "debug=fast", f"wandb.mode={mode}", "wandb.project=q",
        "wandb.group=a_study", "wandb.candidate=adamw", "wandb.job_type=tune", "wandb.tags=[adamw]",
        f"data.root={data_root}", f"hydra.run.dir={run_dir}",
    )  # fmt: skip
    if mode == "offline":
        (folder,) = (run_dir / "wandb").glob("offline-run-*")
        run_client(server, "-m", "wandb", "sync", folder)
    assert f"W&B summary run: {server}/" in run_client(server, "report.py", run_dir, "--wandb")
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
    assert "The test accuracy of all runs is" in run["summary"]["report/claims"]
    files = files_of(server, report_id)
    assert {"report.csv", "report.html"} <= set(files)
    for folder in ("media/html/report/page_", "media/table/report/candidates_"):
        assert any(name.startswith(folder) for name in files), files
