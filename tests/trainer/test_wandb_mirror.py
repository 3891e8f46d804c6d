"""W&B may be down, slow or dying: training does not wait for it, and nothing is lost."""

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
    monkeypatch.setattr(wandb_mirror, "stuck", [])
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
    assert "wandb_sync" in summary(run_dir)["wandb"]["problem"]
    assert len(wandb_mirror.stuck) == 1
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


@pytest.mark.parametrize("file", ["config.yaml", "summary.json", "metrics.jsonl"])
def test_sending_a_damaged_run(train, server, file):
    run_dir = train(*SHORT)
    (run_dir / file).write_text("{[")
    with pytest.raises(ConfigError, match=file):
        wandb_sync.send_again(run_dir, new_run=False)
