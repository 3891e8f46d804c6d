"""W&B may be down, slow or dying: training does not wait for it, and nothing is lost."""

import json
import shutil
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from tests.trainer.interrupting import events, signal_at, summary
from trainer import wandb_mirror, wandb_sync
from trainer.errors import ConfigError, Interrupted

pytestmark = pytest.mark.usefixtures("few_digits")
SHORT = ("data.batch_size=40", "trainer.max_steps=8", "trainer.log_every_steps=1")
ONLINE = (*SHORT, "wandb.mode=online")


class FakeRun:
    """What a server would have: the rows by their step, as W&B keeps them."""

    def __init__(self, server, **settings):
        self.server, self.settings = server, settings
        self.url = f"https://server/{settings['id']}"
        self.dir = settings["dir"]
        self.rows = server.runs.setdefault(settings["id"], {})
        self.summary: dict = {}

    def log(self, values, step):
        if self.server.dies_at is not None and len(self.rows) >= self.server.dies_at:
            raise ConnectionError("the backend died")
        if step >= len(self.rows):  # W&B ignores steps that it has
            self.rows[step] = values

    def define_metric(self, *_, **__):
        pass

    log_code = save = define_metric

    def mark_preempting(self):
        self.server.preempted.append(self.settings["id"])

    def finish(self, exit_code):
        self.server.exit_codes.append(exit_code)


@pytest.fixture
def server(monkeypatch):
    """A W&B of our own in place of the package; ``hangs`` until the event is set."""
    fake = SimpleNamespace(runs={}, preempted=[], exit_codes=[], dies_at=None, hangs=None)

    def init(**settings):
        if fake.hangs is not None:
            fake.hangs.wait(30)
        return FakeRun(fake, **settings)

    module = SimpleNamespace(init=init, Settings=dict)
    module.Table = module.Image = module.plot_table = lambda *_, **__: "shown"
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(wandb_mirror, "troubled", [])
    return fake


def test_everything_arrives(train, server):
    run_dir = train(*ONLINE)
    (rows,) = server.runs.values()
    assert [row["step"] for row in rows.values()] == [event["step"] for event in events(run_dir)]
    assert server.exit_codes == [0]


def test_interrupted_and_resumed(train, server, tmp_path):
    """The same W&B run goes on, without lost or doubled steps, marked as preempted in between."""
    run_dir = tmp_path / "run"
    with signal_at(4), pytest.raises(Interrupted):
        train(*ONLINE, run_dir=run_dir)
    assert len(server.preempted) == 1
    assert server.exit_codes == [1]
    train(*ONLINE, "resume=auto", run_dir=run_dir)
    (rows,) = server.runs.values()
    assert list(rows) == list(range(len(events(run_dir))))
    steps = [row["step"] for row in rows.values() if "train/loss" in row]
    assert steps == list(range(1, 9))


def test_hanging_server(train, server, monkeypatch):
    monkeypatch.setattr(wandb_mirror, "FINISH_TIMEOUT_SECONDS", 0.2)
    server.hangs = threading.Event()
    start = time.monotonic()
    run_dir = train(*ONLINE)
    assert time.monotonic() - start < 25
    assert len(events(run_dir)) > 8
    assert summary(run_dir)["status"] == "completed"
    assert "did not answer" in summary(run_dir)["wandb"]["problem"]
    assert f"wandb_sync {run_dir}" in (run_dir / "train.log").read_text()
    assert wandb_mirror.troubled == [str(run_dir)]
    server.hangs.set()


def test_dying_backend_and_sending_again(train, server):
    server.dies_at = 3
    run_dir = train(*ONLINE)
    assert summary(run_dir)["status"] == "completed"
    assert "the backend died" in summary(run_dir)["wandb"]["problem"]
    server.dies_at = None
    wandb_sync.send_again(run_dir, new_run=False)
    (rows,) = server.runs.values()
    assert list(rows) == list(range(len(events(run_dir))))
    wandb_sync.send_again(run_dir, new_run=True)
    assert len(server.runs) == 2


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
    assert not server.runs


def test_sending_a_killed_run(sent, copied, server):
    """It has no summary, and half a last line."""
    known = json.loads((copied / "summary.json").read_text())["wandb"]["id"]
    (copied / "summary.json").unlink()
    with (copied / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9')
    wandb_sync.send_again(copied, new_run=False)
    assert list(server.runs) == [known]
    assert list(server.runs[known]) == list(range(len(events(sent))))
    assert (copied / "metrics.jsonl").read_text().endswith('{"step": 9')  # as it was
    shutil.rmtree(copied / "checkpoints")
    wandb_sync.send_again(copied, new_run=False)
    assert len(server.runs) == 2


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
