"""The real W&B client: offline, without an API key, and with an unusable server."""

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
    """Reset the client: no WANDB variables, and no server that has failed."""
    import wandb

    monkeypatch.setattr(wandb_logger, "server_has_failed", False)
    for name in VARIABLES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    yield
    sys.modules["wandb"] = wandb
    wandb.teardown()


def offline_runs(run_dir):
    """Stop the client, which completes its files, and return those of offline runs."""
    import wandb

    wandb.teardown()
    return sorted((run_dir / "wandb").glob("offline-run-*/*.wandb"))


def test_offline_run_has_config_metrics_and_media(train, monkeypatch, capsys):
    """The config includes values resolved from the data; media include the worst predictions."""
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


def test_online_without_api_key_fails_at_once(command_here, tmp_path):
    """This is checked before data and model are built; W&B itself would prompt for a key."""
    no_key = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    done = command_here("train.py", "debug=fast", "wandb.mode=online", **no_key)
    assert done.returncode == 1
    assert "error: wandb.mode=online, but there is no API key: run wandb login" in done.stderr
    assert "parameters" not in done.stdout
    study = command_here("train.py", "study=sgd_or_adamw", WANDB_MODE="online", **no_key)
    assert "there is no API key" in study.stderr
    assert "preflight" not in study.stdout


def test_resumed_run_keeps_its_wandb_id(train, tmp_path):
    run_dir = tmp_path / "run"
    with signal_at(3), pytest.raises(Interrupted):
        train(*OFFLINE, run_dir=run_dir)
    assert summary(run_dir)["status"] == "interrupted"
    train(*OFFLINE, "resume=auto", run_dir=run_dir)
    assert {file.name for file in offline_runs(run_dir)} == {
        f"run-{summary(run_dir)['wandb']['id']}.wandb"
    }


@pytest.fixture(params=["refuses", "never answers"])
def unusable_server(request, monkeypatch):
    """A server that refuses connections, or accepts them and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setattr(wandb_logger, "INIT_SECONDS", 1.0)
        if request.param == "refuses":
            server.close()
        yield


def test_unusable_server_falls_back_to_offline(train, unusable_server, capsys):
    """One line reports it, and the next job does not wait for the server again."""
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


def test_full_disk_under_wandb_is_reported(train, tmp_path, monkeypatch, capsys):
    """W&B's client does not report it; the run continues, and prints what may be lost."""
    monkeypatch.setattr(wandb_logger, "why_not_writable", lambda folder: "No space left on device")
    run_dir = train(*OFFLINE)
    assert summary(run_dir)["status"] == "completed"
    folder = summary(run_dir)["wandb"]["directory"]
    assert summary(run_dir)["wandb"]["problem"] == f"{folder}: No space left on device"
    assert "it may have only part of the run. Send the run later" in capsys.readouterr().out


def test_run_without_wandb_installed(train, monkeypatch, capsys):
    wandb_mode.import_client.cache_clear()
    monkeypatch.setitem(sys.modules, "wandb", None)
    run_dir = train(*OFFLINE)
    assert summary(run_dir)["status"] == "completed"
    assert "W&B: not installed: pip install wandb" in capsys.readouterr().out
    assert summary(train("debug=fast"))["wandb"]["problem"] is None  # disabled


def test_environment_fills_in_null_settings(composed, monkeypatch, tmp_path):
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
def finished_run(train_once):
    return train_once("debug=fast", "data.limit_train_samples=128")


@pytest.fixture
def run_copy(finished_run, tmp_path, monkeypatch):
    """A copy of a finished run that a test may damage."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    return shutil.copytree(finished_run, tmp_path / "copied")


def test_recorded_run_is_sent(run_copy, capsys, monkeypatch):
    """The last line of metrics is incomplete, as after a kill; the id is kept or a new one made."""
    with (run_copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9')
    monkeypatch.setattr(sys, "argv", ["wandb_send", str(run_copy)])
    assert wandb_send.main() == 0, capsys.readouterr().err
    (file,) = offline_runs(run_copy)
    assert file.name == f"run-{summary(run_copy)['wandb']['id']}.wandb"
    assert file.read_bytes().count(b"val/accuracy") >= 2
    wandb_send.send(run_copy, new_run=True)
    assert len({file.name for file in offline_runs(run_copy)}) == 2


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
def test_damaged_run_is_not_sent(run_copy, file, content):
    (run_copy / file).unlink()
    if content is not None:
        (run_copy / file).write_text(content)
    with pytest.raises(ConfigError, match=str(run_copy)):
        wandb_send.send(run_copy, new_run=False)
    assert not offline_runs(run_copy)


@pytest.mark.parametrize("file", ["/etc/hostname", "../config.yaml", "table.json"])
def test_media_outside_the_run_are_not_sent(run_copy, file):
    table = {"columns": ["x"], "rows": [["../../elsewhere.png"]], "image_columns": ["x"]}
    (run_copy / "media" / "table.json").write_text(json.dumps(table))
    event = {"step": 1, "media": {"val/x": {"kind": "table", "file": file}}}
    (run_copy / "metrics.jsonl").write_text(json.dumps(event) + "\n")
    with pytest.raises(ConfigError, match="names a file outside of"):
        wandb_send.send(run_copy, new_run=False)


def test_run_log_without_writers_writes_nothing(tmp_path):
    """Ranks other than 0 use it; it does not ask the objective for media either."""
    with RunLog(Job(run_dir=str(tmp_path))) as run_log:
        run_log.log_metrics({"val/loss": 1.0}, step=1, epoch=0.1, seconds=2.0)
        run_log.log_media("val", 1, make=lambda folder: pytest.fail("was called"))
        run_log.print("x")
    assert list(tmp_path.iterdir()) == []
    assert run_log.summary["status"] == "completed"


def test_summary_status_is_running_until_the_end(train, monkeypatch):
    """It is written at the start and at every evaluation, which identifies killed runs."""
    summaries = []
    write_summary = RunFiles.write_summary

    def write_and_record(self, content):
        write_summary(self, content)
        summaries.append(summary(self.run_dir))

    monkeypatch.setattr(RunFiles, "write_summary", write_and_record)
    train("debug=fast")
    *running, _, last = summaries
    assert {entry["status"] for entry in running} == {"running"}
    assert summaries[0]["overrides"] == ["debug=fast"]
    assert [entry["steps"] for entry in running if "steps" in entry][:2] == [2, 4]
    assert running[-1]["best"] is not None
    assert last["status"] == "completed"
