"""Mirror a run's events to Weights & Biases from a thread of its own.

Importing wandb and starting its service costs seconds, and a server may be slow or gone. So the
loop only puts events in a queue; the thread does the rest, and training never waits for it. What
did not arrive is still in ``metrics.jsonl``, from which :mod:`trainer.wandb_sync` sends it again.
"""

from __future__ import annotations

import html
import json
import logging
import os
import queue
import secrets
import shutil
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.job import Job
from trainer.lean_wandb import leave_unused_out
from trainer.redact import redacted

FINISH_TIMEOUT_SECONDS = 60.0
HURRIED_TIMEOUT_SECONDS = 5.0  # for an interrupted run, or where there was trouble before
troubled: list[str] = []  # run directories of this process that W&B does not have in full
# overrides that say where and how a run is made, not what is compared
NOT_COMPARED = ("seed", "study", "resume", "trainer", "debug", "data.root")
NOT_COMPARED_PARTS = ("wandb.", "hydra", "trainer.devices", "trainer.accelerator", "trainer.num_")
CODE_ROOMS = ("models", "data", "optim", "trainer", "conf")


class WandbMirror:
    """One W&B run for one job; silent and without prompts."""

    def __init__(self, config: dict[str, Any], job: Job, earlier: dict[str, Any]) -> None:
        """``earlier`` is the :meth:`state` of the run that goes on, empty for a new one."""
        self.settings = config["wandb"]
        self.job = job
        self.mode = choose_mode(self.settings["mode"])
        # the agent of a W&B sweep waits for the run that it named
        agents = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
        self.id = earlier.get("id") or agents or secrets.token_hex(4)
        self.url: str | None = earlier.get("url")
        self.problem: str | None = None
        self.queue: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None

    def start(self, config: dict[str, Any]) -> None:
        if self.mode != "disabled":
            self.thread = threading.Thread(target=self.work, args=(config,), daemon=True)
            self.thread.start()

    def send(self, number: int, event: dict[str, Any]) -> None:
        """Send event ``number`` of ``metrics.jsonl``, counted from 0."""
        if self.mode != "disabled":
            self.queue.put(("event", (number, event)))

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """End the run with its exit state; wait a bounded time for what is still in the queue."""
        if self.thread is not None:
            self.queue.put(("finish", summary))
            is_hurried = summary["status"] == "interrupted" or troubled
            seconds = HURRIED_TIMEOUT_SECONDS if is_hurried else FINISH_TIMEOUT_SECONDS
            try:
                self.thread.join(seconds)
            finally:  # Ctrl-C ends the waiting
                if self.thread.is_alive():
                    self.problem = f"W&B did not answer within {seconds:.0f} s"
                if self.problem is not None:
                    troubled.append(self.job.run_dir)
        return {**self.state(), "problem": self.problem}

    def state(self) -> dict[str, Any]:
        return {"id": self.id, "group": self.group, "mode": self.mode, "url": self.url}

    @property
    def group(self) -> str | None:
        return self.settings["group"] or self.job.sweep

    def work(self, config: dict[str, Any]) -> None:
        """The thread: start the run, send events as they come, finish."""
        try:
            run = self.open_run(config)
            self.url = run.url if self.mode == "online" else None
            while True:
                kind, content = self.queue.get()
                if kind == "finish":
                    close_run(run, content, self.job.path)
                    return
                number, event = content
                send_event(run, number, event, self.job.path)
        except Exception as error:  # whatever W&B raises must not reach the training
            lines = str(error).strip().splitlines()
            self.problem = ": ".join([type(error).__name__, *lines[:1]])
            restart_backend(error)

    def open_run(self, config: dict[str, Any]) -> Any:
        return open_run(
            config,
            self.job.path,
            redacted(list(self.job.overrides)),
            group=self.group,
            id=self.id,
            mode=self.mode,
        )


def restart_backend(error: Exception) -> None:
    """Let the next run of this process have a new one, unless it is the server that failed."""
    if wandb := sys.modules.get("wandb"):
        with suppress(Exception):
            if not isinstance(error, wandb.errors.CommError):
                wandb.teardown()


def open_run(config: dict[str, Any], run_dir: Path, overrides: list[str], **identity: Any) -> Any:
    """Start a W&B run, or go on with it if the server knows its id."""
    os.environ.setdefault("WANDB_SILENT", "true")  # the settings below come too late for some
    logging.raiseExceptions = False  # wandb's own log may be on a full disk
    import wandb

    leave_unused_out()
    # the console is captured by train.log; statistics of the machine would be another thread, and
    # what W&B notes of the process has the command line with whatever secrets stand there
    quiet = wandb.Settings(console="off", silent=True, x_disable_stats=True, x_disable_meta=True)
    named = config["wandb"].get("candidate")  # a study names its runs: adamw-tune-003
    run = wandb.init(
        project=config["wandb"]["project"],
        entity=config["wandb"]["entity"],
        tags=config["wandb"]["tags"],
        job_type=config["wandb"]["job_type"],
        dir=str(run_dir),
        config={**config, "candidate": candidate(config, overrides), "run_dir": str(run_dir)},
        name=run_dir.name if named else run_name(overrides) or run_dir.name,
        settings=quiet,
        reinit="create_new",
        resume="allow" if identity["mode"] == "online" else None,
        **identity,
    )
    for axis in ("step", "seconds", "epoch"):  # to choose as x, not to look at
        run.define_metric(axis, hidden=True)
    run.define_metric("*", step_metric="step")
    run.define_metric(config["monitor"], step_metric="step", summary=config["monitor_mode"])
    log_code(run)
    return run


def log_code(run: Any) -> None:
    """The rooms that a run is made of. W&B itself would search environments and outputs, too."""
    root = Path(__file__).parent.parent
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(root / "train.py", folder)
        for room in CODE_ROOMS:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(root / room, Path(folder) / room, ignore=ignored)
        run.log_code(folder, include_fn=lambda path: path.endswith((".py", ".yaml")))


def run_name(overrides: list[str]) -> str:
    """What the command line set, apart from where and how it is logged."""
    return ", ".join(text for text in overrides if not text.startswith(("wandb.", "data.root")))


def candidate(config: dict[str, Any], overrides: list[str]) -> str:
    """What is compared in the group: a column that W&B can group the runs of a sweep by."""
    if config["wandb"].get("candidate"):
        return str(config["wandb"]["candidate"])
    pairs = [override.lstrip("+").partition("=") for override in overrides]
    chosen = [
        f"{key}={value}" if "." in key else value
        for key, _, value in pairs
        if key not in NOT_COMPARED and not key.startswith(NOT_COMPARED_PARTS)
    ]
    # a run with phases has no optimizer at the top
    named = config["optimizer"] or config["model"]
    return ", ".join(chosen) or str(named["_target_"]).rpartition(".")[2]


def close_run(run: Any, summary: dict[str, Any], run_dir: Path) -> None:
    """Send the files and the summary, and how the run ended."""
    # not config.yaml: W&B writes one of its own over it, through the link that it saves
    for name in ("train.log", "metrics.jsonl"):
        run.save(str(run_dir / name), base_path=str(run_dir), policy="now")
    # the monitored metric keeps the best-of that define_metric makes
    known = {
        key: value for key, value in summary.items() if key not in ("wandb", summary.get("monitor"))
    }
    run.summary.update(known)
    if summary["status"] == "interrupted":
        run.mark_preempting()
    run.finish(exit_code=int(summary["status"] not in ("completed", "stopped", "pruned")))


def send_event(run: Any, number: int, event: dict[str, Any], run_dir: Path) -> None:
    """Send line ``number`` of ``metrics.jsonl``.

    Its number is W&B's own step: of a run that goes on after a crash, the lines that W&B already
    has are computed again, and W&B ignores them. Curves are drawn over the event's ``step``.
    """
    values = {key: value for key, value in event.items() if key != "media"}
    for name, entry in event.get("media", {}).items():
        values[name] = medium(entry, run_dir / "media")
    run.log(values, step=number)


def medium(entry: dict[str, str], folder: Path) -> Any:
    """A recorded picture, text, table or confusion matrix as W&B shows it."""
    import wandb

    file = inside(folder, entry["file"])
    if entry["kind"] == "text":
        content = html.escape(file.read_text(encoding="utf-8"))
        return wandb.Html(f"<pre>{content}</pre>")

    if entry["kind"] == "picture":
        return wandb.Image(str(file), caption=entry["caption"])
    content = json.loads(file.read_text())
    if entry["kind"] == "confusion_matrix":
        names = content["class_names"]
        rows = [
            [names[i], names[j], count]
            for i, row in enumerate(content["counts"])
            for j, count in enumerate(row)
        ]
        table = wandb.Table(columns=["Actual", "Predicted", "nPredictions"], data=rows)
        fields = {"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"}
        return wandb.plot_table(
            "wandb/confusion_matrix/v1", table, fields, {"title": "Confusion matrix"}
        )
    columns = content["columns"]
    rows = [list(row) for row in content["rows"]]
    if "image" in columns:
        position = columns.index("image")
        for row in rows:
            image = row[position] and inside(folder, file.parent / row[position])
            row[position] = wandb.Image(str(image)) if image else None
    return wandb.Table(columns=columns, data=rows)


def inside(folder: Path, name: str | Path) -> Path:
    """A file of ``folder``: a doctored record must not send another one away.

    Raises:
        ConfigError: it is elsewhere.
    """
    file = (folder / name).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise ConfigError(f"metrics.jsonl names a file outside of {folder}: {name}")
    return file


def choose_mode(mode: str) -> str:
    """``auto`` is online where a key is configured, else offline; never a prompt."""
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return "online"
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return "online" if "wandb" in netrc.read_text() else "offline"
    except OSError:
        return "offline"
