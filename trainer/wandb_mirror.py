"""Mirror a run's events to Weights & Biases from a thread of its own.

Importing wandb and starting its service costs seconds, and a server may be slow or gone. So the
loop only puts events in a queue; the thread does the rest, and training never waits for it. What
did not arrive is still in ``metrics.jsonl``, from which :mod:`trainer.wandb_sync` sends it again.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.records import Job

FINISH_TIMEOUT_SECONDS = 60.0
CODE_ROOMS = ("models", "data", "optim", "trainer", "conf")


class WandbMirror:
    """One W&B run for one job; silent and without prompts."""

    def __init__(self, config: dict[str, Any], job: Job) -> None:
        self.settings = config["wandb"]
        self.monitor = (config["monitor"], config["monitor_mode"])
        self.job = job
        self.mode = choose_mode(self.settings["mode"])
        self.id = secrets.token_hex(4)
        self.url: str | None = None
        self.problem: str | None = None
        self.queue: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None

    def start(self, config: dict[str, Any]) -> None:
        if self.mode != "disabled":
            self.thread = threading.Thread(target=self.work, args=(config,), daemon=True)
            self.thread.start()

    def send(self, event: dict[str, Any]) -> None:
        if self.mode != "disabled":
            self.queue.put(("event", event))

    def finish(self, summary: dict[str, Any], failed: bool) -> dict[str, Any]:
        """End the run with its exit state; wait a bounded time for what is still in the queue."""
        if self.thread is not None:
            self.queue.put(("finish", (dict(summary), int(failed))))
            self.thread.join(FINISH_TIMEOUT_SECONDS)
            if self.thread.is_alive():
                self.problem = f"W&B did not answer within {FINISH_TIMEOUT_SECONDS:.0f} s"
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
                    summary, exit_code = content
                    self.close_run(run, summary, exit_code)
                    return
                send_event(run, content, self.job.path)
        except Exception as error:  # whatever W&B raises must not reach the training
            self.problem = f"{type(error).__name__}: {error}"

    def open_run(self, config: dict[str, Any]) -> Any:
        os.environ.setdefault("WANDB_SILENT", "true")  # the settings below come too late for some
        import wandb

        # the console is captured by train.log; statistics of the machine would be another thread
        quiet = wandb.Settings(console="off", silent=True, x_disable_stats=True)
        run = wandb.init(
            project=self.settings["project"],
            entity=self.settings["entity"],
            group=self.group,
            name=", ".join(self.job.overrides) or self.job.path.name,
            tags=self.settings["tags"],
            job_type=self.settings["job_type"],
            id=self.id,
            mode=self.mode,  # type: ignore[arg-type]  # checked with the settings
            dir=self.job.run_dir,
            config={**config, "run_dir": self.job.run_dir},
            settings=quiet,
            reinit="create_new",
        )
        metric, mode = self.monitor
        run.define_metric("step", hidden=True)
        run.define_metric("*", step_metric="step")
        run.define_metric(metric, step_metric="step", summary=mode)
        root = Path(__file__).parent.parent
        rooms = tuple(str(root / room) for room in CODE_ROOMS)
        run.log_code(
            str(root),
            include_fn=lambda path: (
                (path.startswith(rooms) and path.endswith((".py", ".yaml")))
                or Path(path).name == "train.py"
            ),
        )
        return run

    def close_run(self, run: Any, summary: dict[str, Any], exit_code: int) -> None:
        for name in ("config.yaml", "train.log", "metrics.jsonl"):
            run.save(str(self.job.path / name), base_path=self.job.run_dir, policy="now")
        run.summary.update({key: value for key, value in summary.items() if key != "wandb"})
        run.finish(exit_code=exit_code)


def send_event(run: Any, event: dict[str, Any], run_dir: Path) -> None:
    """Send one line of ``metrics.jsonl``; events come in order, each with its own ``step``."""
    values = {key: value for key, value in event.items() if key != "media"}
    for name, entry in event.get("media", {}).items():
        values[name] = medium(entry, run_dir / "media")
    run.log(values)


def medium(entry: dict[str, str], folder: Path) -> Any:
    """A recorded picture, table or confusion matrix as W&B shows it."""
    import wandb

    if entry["kind"] == "picture":
        return wandb.Image(str(folder / entry["file"]), caption=entry["caption"])
    file = folder / entry["file"]
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
            row[position] = wandb.Image(str(file.parent / row[position])) if row[position] else None
    return wandb.Table(columns=columns, data=rows)


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
