"""W&B may be down, slow or dying: training does not wait for it, and nothing is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.errors import ConfigError, Interrupted
from tests.conftest import QUIET, ROOT
from tests.trainer.interrupting import events, signal_at, summary
from tests.trainer.processes import children, wait_until
from trainer import wandb_mirror, wandb_sync

pytestmark = pytest.mark.usefixtures("few_digits")
SHORT = ("data.batch_size=40", "trainer.max_steps=8", "trainer.log_every_steps=1")
ONLINE = (*SHORT, "wandb.mode=online")


class Server:
    """What ``fake_wandb.py`` has been sent: rows by their step, as W&B keeps them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs: dict[str, dict[int, dict]] = {}
        self.closed: list[dict] = []

    def read(self):
        self.runs, self.closed = {}, []
        lines = [line for file in self.folder.iterdir() for line in file.read_text().splitlines()]
        for entry in sorted(map(json.loads, lines), key=lambda entry: entry["time"]):
            rows = self.runs.setdefault(entry["id"], {})
            if "exit_code" in entry:
                self.closed.append(entry)
            elif "step" in entry:
                rows.setdefault(entry["step"], entry["values"])  # it ignores what it has
        return self

    def num_rows(self):
        return sum(len(rows) for rows in self.read().runs.values())


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A W&B of our own in place of the package, here and in the process that mirrors."""
    packages, folder = tmp_path / "packages", tmp_path / "server"
    packages.mkdir()
    folder.mkdir()
    shutil.copy(Path(__file__).with_name("fake_wandb.py"), packages / "wandb.py")
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.setenv("FAKE_WANDB", str(folder))
    monkeypatch.syspath_prepend(packages)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(wandb_mirror, "troubled", [])
    monkeypatch.setattr(wandb_mirror, "_process", None)
    yield Server(folder)
    sys.modules.pop("wandb", None)
    if wandb_mirror._process is not None:
        wandb_mirror._process.end()


def test_everything_arrives(train, server):
    run_dir = train(*ONLINE)
    ((run_id, rows),) = server.read().runs.items()
    assert [row["step"] for row in rows.values()] == [event["step"] for event in events(run_dir)]
    assert [entry["exit_code"] for entry in server.closed] == [0]
    assert summary(run_dir)["wandb"] == {
        "id": run_id, "group": None, "mode": "online", "url": f"https://server/{run_id}",
        "problem": None,
    }  # fmt: skip


def test_one_process_serves_all_jobs(train, server):
    train(*ONLINE)
    process = wandb_mirror._process
    train(*ONLINE)
    assert wandb_mirror._process is process
    assert len(server.read().runs) == 2


def test_interrupted_and_resumed(train, server, tmp_path):
    """The same W&B run goes on, without lost or doubled steps, marked as preempted in between."""
    run_dir = tmp_path / "run"
    with signal_at(4), pytest.raises(Interrupted):
        train(*ONLINE, run_dir=run_dir)
    assert [(e["exit_code"], e["is_preempted"]) for e in server.read().closed] == [(1, True)]
    train(*ONLINE, "resume=auto", run_dir=run_dir)
    (rows,) = server.read().runs.values()
    assert list(rows) == list(range(len(events(run_dir))))
    steps = [row["step"] for row in rows.values() if "train/loss" in row]
    assert steps == list(range(1, 9))


def test_hanging_server(train, server, monkeypatch):
    monkeypatch.setattr(wandb_mirror, "FINISH_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setenv("FAKE_WANDB_HANGS", "1")
    start = time.monotonic()
    run_dir = train(*ONLINE)
    assert time.monotonic() - start < 10
    assert len(events(run_dir)) > 8
    assert summary(run_dir)["status"] == "completed"
    assert "did not answer" in summary(run_dir)["wandb"]["problem"]
    assert f"wandb_sync {run_dir}" in (run_dir / "train.log").read_text()
    assert wandb_mirror.troubled == [str(run_dir)]
    assert not wandb_mirror._process.is_alive


def test_dying_backend_and_sending_again(train, server, monkeypatch):
    monkeypatch.setenv("FAKE_WANDB_DIES_AT", "3")
    run_dir = train(*ONLINE)
    assert summary(run_dir)["status"] == "completed"
    assert "the backend died" in summary(run_dir)["wandb"]["problem"]
    assert not server.read().closed  # W&B's server marks it as crashed
    monkeypatch.delenv("FAKE_WANDB_DIES_AT")
    wandb_sync.send_again(run_dir, new_run=False)
    (rows,) = server.read().runs.values()
    assert list(rows) == list(range(len(events(run_dir))))
    wandb_sync.send_again(run_dir, new_run=True)
    assert len(server.read().runs) == 2
    train(*ONLINE)  # by a new process
    assert len(server.read().runs) == 3


def test_a_process_that_cannot_start(train, server, tmp_path):
    (tmp_path / "packages" / "wandb.py").write_text("raise ImportError('no such W&B')")
    run_dir = train(*ONLINE)
    assert summary(run_dir)["wandb"]["problem"] == "ImportError: no such W&B"


def test_a_process_that_is_killed(train, server, monkeypatch):
    monkeypatch.setenv("FAKE_WANDB_DIES_AT", "3")
    monkeypatch.setenv("FAKE_WANDB_DIES_BY", str(int(signal.SIGKILL)))
    run_dir = train(*ONLINE)
    assert summary(run_dir)["status"] == "completed"
    assert summary(run_dir)["wandb"]["problem"] == "W&B's process has ended by SIGKILL"


def test_a_process_that_cannot_be_started(train, server, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    run_dir = train(*ONLINE)
    assert summary(run_dir)["status"] == "completed"
    assert "cannot be started: No such file" in summary(run_dir)["wandb"]["problem"]


def test_a_run_without_an_end_takes_no_other_with_it(train, server, tmp_path):
    """What cannot write its summary does not end its W&B run: its process is not used again."""
    (tmp_path / "first" / "summary.json").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot write"):
        train(*ONLINE, run_dir=tmp_path / "first")
    run_dir = train(*ONLINE)
    state = summary(run_dir)["wandb"]
    assert state["problem"] is None
    assert state["url"] == f"https://server/{state['id']}"
    assert list(server.read().runs[state["id"]]) == list(range(len(events(run_dir))))
    *first, second = [(entry["id"], entry["exit_code"]) for entry in server.closed]
    assert second == (state["id"], 0)
    assert all(exit_code == 1 for _, exit_code in first)  # if there was time to say so


@pytest.fixture
def start(data_root, tmp_path):
    """``start("trainer.max_steps=9")``: the command in the background, in the directory ``run``."""

    def start_command(*overrides):
        settings = [*QUIET[1:], f"data.root={data_root}", "hydra.run.dir=run", *ONLINE, *overrides]
        return subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *settings],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
        )

    return start_command


def test_a_killed_run_is_sent_to_where_it_came(start, server, tmp_path):
    """And marked as failed; a signal to the whole terminal does not end the process before."""
    with start("trainer.max_steps=100000") as run:
        wait_until(lambda: server.num_rows() > 3)
        (mirror,) = children(run.pid, "wandb_process")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(mirror, number)
        before = server.num_rows()
        wait_until(lambda: server.num_rows() > before)
        run.kill()
    wait_until(lambda: server.read().closed)
    (entry,) = server.closed
    assert (entry["exit_code"], entry["is_preempted"]) == (1, False)
    (rows,) = server.runs.values()
    complete = (tmp_path / "run" / "metrics.jsonl").read_text().rpartition("\n")[0]
    assert len(rows) == len(complete.splitlines())


def test_a_killed_run_goes_on_at_once(start, server, monkeypatch):
    """The process that still sends the first part is waited for: the second has the last word."""
    monkeypatch.setenv("FAKE_WANDB_SLOW", "4")
    often = ("trainer.max_steps=100000", "trainer.checkpoint_every_steps=20")
    with start(*often) as run:
        wait_until(lambda: server.num_rows() > 60)
        run.kill()
    with start(*often, "resume=auto", "trainer.limit_train_steps=100") as run:
        assert run.wait(120) == 0
    assert [entry["exit_code"] for entry in server.read().closed] == [1, 0]
    assert len(server.runs) == 1


HANGING = """
import os, time
from trainer import wandb_process
wandb_process.ORPHAN_SECONDS = 0.1
wandb_process.threading.Thread(target=wandb_process.end_after, args=(os.getpid(),)).start()
time.sleep(60)
"""


def test_a_process_without_a_parent_ends_whatever_hangs():
    done = subprocess.run([sys.executable, "-c", HANGING], cwd=ROOT, timeout=30)
    assert done.returncode == 1


@pytest.fixture(scope="module")
def sent(train_once):
    return train_once("debug=fast")


@pytest.fixture
def copied(sent, tmp_path):
    """A run directory that a test may damage."""
    return shutil.copytree(sent, tmp_path / "copied")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.yaml", "{["),
        ("config.yaml", "seed: 0"),
        ("config.yaml", "wandb: {}"),
        ("summary.json", "{["),
        ("summary.json", '{"wandb": null, "overrides": []}'),
        ("metrics.jsonl", "{[\n"),
        ("metrics.jsonl", None),
    ],
)
def test_sending_a_damaged_run(copied, server, file, content):
    (copied / file).unlink()
    if content is not None:
        (copied / file).write_text(content)
    with pytest.raises(ConfigError, match=file):
        wandb_sync.send_again(copied, new_run=False)
    assert not server.read().runs


def test_sending_a_killed_run(sent, copied, server):
    """It has no summary, and half a last line."""
    known = json.loads((copied / "summary.json").read_text())["wandb"]["id"]
    (copied / "summary.json").unlink()
    with (copied / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9')
    wandb_sync.send_again(copied, new_run=False)
    assert list(server.read().runs) == [known]
    assert list(server.runs[known]) == list(range(len(events(sent))))
    assert (copied / "metrics.jsonl").read_text().endswith('{"step": 9')  # as it was
    shutil.rmtree(copied / "checkpoints")
    wandb_sync.send_again(copied, new_run=False)
    assert len(server.read().runs) == 2


def test_sending_where_wandb_is_disabled(copied, server, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with pytest.raises(ConfigError, match="WANDB_MODE=disabled"):
        wandb_sync.send_again(copied, new_run=False)


def test_sending_without_its_media(copied, server):
    """One line, as for whatever W&B itself raises."""
    shutil.rmtree(copied / "media")
    with pytest.raises(ConfigError, match=r"cannot send .*No such file"):
        wandb_sync.send_again(copied, new_run=False)


def test_one_damaged_run_of_two(sent, copied, server, monkeypatch, capsys):
    (copied / "summary.json").write_text("{[")
    monkeypatch.setattr(sys, "argv", ["wandb_sync", str(copied), str(sent)])
    assert wandb_sync.main() == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: cannot read")
    assert printed.out.startswith(f"{sent}: https://server/")


@pytest.mark.parametrize("file", ["/etc/hostname", "../config.yaml", "table.json"])
def test_only_the_own_media_are_sent(copied, server, file):
    table = {"columns": ["image"], "rows": [["../../elsewhere.png"]]}
    (copied / "media").mkdir(exist_ok=True)
    (copied / "media" / "table.json").write_text(json.dumps(table))
    event = {"step": 1, "media": {"val/x": {"kind": "table", "file": file}}}
    (copied / "metrics.jsonl").write_text(json.dumps(event) + "\n")
    with pytest.raises(ConfigError, match="names a file outside of"):
        wandb_sync.send_again(copied, new_run=False)
