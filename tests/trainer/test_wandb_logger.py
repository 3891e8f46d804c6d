"""The real W&B client, offline or with a server that is of no use."""

import json
import shutil
import socket
import sys
from collections.abc import Iterator

import pytest

from core.errors import ConfigError, Interrupted
from core.job import Job
from tests.trainer.interrupting import signal_at, summary
from trainer.loggers import wandb_logger, wandb_mode, wandb_send
from trainer.loggers.run_files import RunFiles
from trainer.loggers.run_log import RunLog
from trainer.loggers.wandb_logger import WandbLogger

pytestmark = pytest.mark.usefixtures("few_digits")
OFFLINE = ("debug=fast", "wandb.mode=offline")
VARIABLES = ("API_KEY", "BASE_URL", "ENTITY", "MODE", "PROJECT", "RUN_GROUP", "TAGS")


@pytest.fixture(autouse=True)
def client(monkeypatch) -> Iterator[None]:
    """A client that has not read the environment yet, nor met a server."""
    import wandb

    monkeypatch.setattr(wandb_logger, "server_has_failed", False)
    for name in VARIABLES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    yield
    sys.modules["wandb"] = wandb
    wandb.teardown()


def offline_runs(run_dir):
    """The files of W&B's offline runs, complete."""
    import wandb

    wandb.teardown()
    return sorted((run_dir / "wandb").glob("offline-run-*/*.wandb"))


def test_what_wandb_has_of_a_run(train, monkeypatch, capsys):
    """Its metrics, its config as resolved with the data, the pictures of its worst predictions."""
    monkeypatch.setenv("WANDB_TAGS", "from_environment")
    monkeypatch.setenv("WANDB_RUN_GROUP", "a_group")
    run_dir = train(*OFFLINE, "wandb.tags=[2026]", "wandb.notes=a_note")
    (file,) = offline_runs(run_dir)
    content = file.read_bytes()
    for part in (b'"in_channels":1', b"val/accuracy", b"2026", b"from_environment", b"LightCNN",
                 b"a_group", b"a_note", b"optimizer-experiments", b"confusion_matrix"):  # fmt: skip
        assert part in content, part
    worst = json.loads((run_dir / "media" / "worst_predictions.json").read_text())
    assert worst["image_columns"] == ["sample"]
    pictures = [row[worst["columns"].index("sample")].encode() for row in worst["rows"]]
    assert len(pictures) == 20
    assert all(b"media/images/" in content and picture in content for picture in pictures)
    state = summary(run_dir)["wandb"]
    assert (state["mode"], state["group"], state["problem"]) == ("offline", "a_group", None)
    printed = capsys.readouterr().out
    assert f"W&B: offline, in {file.parent}" in printed
    assert f"wandb leet {file.parent}\n" in printed
    assert f"wandb sync {file.parent}\n" in printed


def test_online_without_a_key_is_said_at_once(command_here, tmp_path):
    """Before data and model are built; W&B itself would ask for one."""
    no_key = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    done = command_here("train.py", "debug=fast", "wandb.mode=online", **no_key)
    assert done.returncode == 1
    assert "error: wandb.mode=online, but there is no API key: run wandb login" in done.stderr
    assert "parameters" not in done.stdout
    study = command_here("train.py", "study=sgd_or_adamw", WANDB_MODE="online", **no_key)
    assert "there is no API key" in study.stderr
    assert "preflight" not in study.stdout


def test_an_interrupted_run_goes_on_under_its_id(train, tmp_path):
    run_dir = tmp_path / "run"
    with signal_at(3), pytest.raises(Interrupted):
        train(*OFFLINE, run_dir=run_dir)
    assert summary(run_dir)["status"] == "interrupted"
    train(*OFFLINE, "resume=auto", run_dir=run_dir)
    assert {file.name for file in offline_runs(run_dir)} == {
        f"run-{summary(run_dir)['wandb']['id']}.wandb"
    }


@pytest.fixture(params=["refuses", "never answers"])
def useless_server(request, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setattr(wandb_logger, "INIT_SECONDS", 1.0)
        if request.param == "refuses":
            server.close()
        yield


def test_a_useless_server(train, useless_server, capsys):
    """The run is logged offline, and one line says so; the next job does not wait for it."""
    run_dir = train("debug=fast", "wandb.mode=online")
    assert len(offline_runs(run_dir)) == 1
    state = summary(run_dir)["wandb"]
    assert state["mode"] == "offline"
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "logging offline" in line]
    assert state["problem"] in line
    assert line.endswith(f"python -m trainer.loggers.wandb_send {run_dir}")
    assert summary(run_dir)["status"] == "completed"

    second = train("debug=fast", "wandb.mode=online")
    assert len(offline_runs(second)) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "logging offline" in line]
    assert "W&B: the server failed in an earlier job; logging offline" in line
    assert line.endswith(str(second))


def test_a_full_disk_under_wandb(train, tmp_path, monkeypatch, capsys):
    """Its client says nothing: the run goes on, and says what may be lost."""
    monkeypatch.setattr(wandb_logger, "why_not_writable", lambda folder: "No space left on device")
    run_dir = train(*OFFLINE)
    assert summary(run_dir)["status"] == "completed"
    folder = summary(run_dir)["wandb"]["directory"]
    assert summary(run_dir)["wandb"]["problem"] == f"{folder}: No space left on device"
    assert "it may have only part of the run. Send the run later" in capsys.readouterr().out


def test_without_wandb(train, monkeypatch, capsys):
    wandb_mode.import_client.cache_clear()
    monkeypatch.setitem(sys.modules, "wandb", None)
    run_dir = train(*OFFLINE)
    assert summary(run_dir)["status"] == "completed"
    assert "W&B: not installed: pip install wandb" in capsys.readouterr().out
    assert summary(train("debug=fast"))["wandb"]["problem"] is None  # disabled


def test_the_environment_speaks_where_the_config_is_silent(composed, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_PROJECT", "p")
    monkeypatch.setenv("WANDB_ENTITY", "e")
    monkeypatch.setenv("WANDB_RUN_GROUP", "g")

    def state(*overrides, sweep="a_sweep"):
        config = composed(*overrides)
        job = Job(str(tmp_path), sweep=sweep)
        logger = WandbLogger(config["wandb"], config, job, {}, print, print)
        return [logger.state[key] for key in ("project", "entity", "group")]

    assert state() == ["p", "e", "g"]
    assert state("wandb.project=q", "wandb.entity=f", "wandb.group=h") == ["q", "f", "h"]
    for name in ("PROJECT", "ENTITY", "RUN_GROUP"):
        monkeypatch.delenv(f"WANDB_{name}")
    assert state() == ["optimizer-experiments", None, "a_sweep"]


@pytest.fixture(scope="module")
def finished(train_once):
    return train_once("debug=fast", "data.limit_train_samples=128")


@pytest.fixture
def copied(finished, tmp_path, monkeypatch):
    """A run directory that a test may damage."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    return shutil.copytree(finished, tmp_path / "copied")


def test_sending_a_run(copied, capsys, monkeypatch):
    """Also one that was killed while it wrote a line; under its id, or a new one."""
    with (copied / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9')
    monkeypatch.setattr(sys, "argv", ["wandb_send", str(copied)])
    assert wandb_send.main() == 0, capsys.readouterr().err
    (file,) = offline_runs(copied)
    assert file.name == f"run-{summary(copied)['wandb']['id']}.wandb"
    assert file.read_bytes().count(b"val/accuracy") >= 2
    wandb_send.send(copied, new_run=True)
    assert len({file.name for file in offline_runs(copied)}) == 2


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.yaml", "{["),
        ("config.yaml", "wandb: {}"),
        ("summary.json", "{["),
        ("summary.json", '{"wandb": null}'),
        ("metrics.jsonl", "{[\n"),
        ("metrics.jsonl", None),
        ("spec.json", "{["),
    ],
)
def test_sending_a_damaged_run(copied, file, content):
    (copied / file).unlink()
    if content is not None:
        (copied / file).write_text(content)
    with pytest.raises(ConfigError, match=str(copied)):
        wandb_send.send(copied, new_run=False)
    assert not offline_runs(copied)


@pytest.mark.parametrize("file", ["/etc/hostname", "../config.yaml", "table.json"])
def test_only_the_own_media_are_sent(copied, file):
    table = {"columns": ["x"], "rows": [["../../elsewhere.png"]], "image_columns": ["x"]}
    (copied / "media" / "table.json").write_text(json.dumps(table))
    event = {"step": 1, "media": {"val/x": {"kind": "table", "file": file}}}
    (copied / "metrics.jsonl").write_text(json.dumps(event) + "\n")
    with pytest.raises(ConfigError, match="names a file outside of"):
        wandb_send.send(copied, new_run=False)


def test_the_log_without_writers(tmp_path):
    """That of the other ranks writes nothing and asks the objective for nothing."""
    with RunLog(Job(run_dir=str(tmp_path))) as run_log:
        run_log.log_metrics({"val/loss": 1.0}, step=1, epoch=0.1, seconds=2.0)
        run_log.log_media("val", 1, make=lambda folder: pytest.fail("was called"))
        run_log.print("x")
    assert list(tmp_path.iterdir()) == []
    assert run_log.summary["status"] == "completed"


def test_the_summary_says_running(train, monkeypatch):
    """From the first moment, and at every evaluation: a killed run shows it."""
    seen = []
    write_summary = RunFiles.write_summary

    def note(self, content):
        write_summary(self, content)
        seen.append(summary(self.run_dir))

    monkeypatch.setattr(RunFiles, "write_summary", note)
    train("debug=fast")
    *running, _, last = seen
    assert {entry["status"] for entry in running} == {"running"}
    assert seen[0]["overrides"] == ["debug=fast"]
    assert [entry["steps"] for entry in running if "steps" in entry][:2] == [2, 4]
    assert running[-1]["best"] is not None
    assert last["status"] == "completed"
