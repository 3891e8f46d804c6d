"""Logging to Weights & Biases. Errors of W&B are printed as one line and never stop the run."""

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import reason
from core.files import why_not_writable
from core.job import Job
from models.build import fill_from_data
from trainer.loggers.wandb_media import wandb_medium
from trainer.loggers.wandb_mode import choose_mode, import_client
from trainer.loggers.wandb_names import candidate, project, run_name, run_tags
from trainer.loggers.writer import Writer

INIT_SECONDS = 30.0
FINISH_SECONDS = 60.0
PROBE_SECONDS = 10.0
SUCCESSES = ("completed", "stopped", "pruned")

server_has_failed = False  # in this process; later jobs then do not wait for it again


class WandbLogger(Writer):
    """One W&B run for one job.

    Args:
        settings: the config section ``wandb`` with every value resolved.
        config: the whole config to record, without values from the environment.
        earlier: the :attr:`state` of the run to continue; empty for a new one.
        say: prints a line of plain text.
        warn: prints a warning.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        config: dict[str, Any],
        job: Job,
        earlier: dict[str, Any],
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self.config, self.job, self.say, self.warn = config, job, say, warn
        self.run: Any = None
        self.probed_at = time.monotonic()
        # a W&B sweep agent expects the id it has set; jobs of another sweep must not share one
        is_named = job.sweep is None or "WANDB_SWEEP_ID" in os.environ
        own_id = os.environ.get("WANDB_RUN_ID") if is_named else None
        self.state: dict[str, Any] = {  # kept in summary.json and in checkpoints
            "id": earlier.get("id") or own_id or secrets.token_hex(4),
            "project": project(settings),
            "entity": settings["entity"] or os.environ.get("WANDB_ENTITY"),
            "group": settings["group"] or os.environ.get("WANDB_RUN_GROUP") or job.sweep,
            "mode": settings["mode"],
            "url": earlier.get("url"),
            "directory": None,  # the client's local files
            "problem": None,
        }

    def write_header(self, spec: Any, facts: dict[str, Any]) -> None:
        """Start the W&B run; offline if the server cannot be reached."""
        global server_has_failed
        state = self.state
        try:
            state["mode"] = choose_mode(state["mode"])
            if state["mode"] == "online" and server_has_failed:
                state["mode"] = "offline"
                self.note_problem("the server failed in an earlier job", "logging offline")
            if state["mode"] != "disabled":
                self.init(spec)
        except ImportError:
            missing = "not installed: pip install wandb, or wandb.mode=disabled"
            self.note_problem(missing, "logging without it")
        except Exception as error:  # whatever W&B raises
            if state["mode"] == "offline":
                self.note_problem(describe(error), "logging without it")
                return
            server_has_failed = True
            import_client().teardown(exit_code=1)  # or its service keeps the id in use
            state["mode"] = "offline"
            self.note_problem(describe(error), "logging offline")
            self.write_header(spec, facts)

    def init(self, spec: Any) -> None:
        wandb = import_client()
        state, config = self.state, self.config
        env_tags = os.environ.get("WANDB_TAGS", "").split(",")
        self.run = run = wandb.init(
            project=state["project"],
            entity=state["entity"],
            group=state["group"],
            id=state["id"],
            mode=state["mode"],
            resume="allow" if state["mode"] == "online" else None,
            name=config["wandb"]["name"]
            or os.environ.get("WANDB_NAME")
            or run_name(config, self.job.path, self.job.overrides),
            notes=config["wandb"]["notes"],
            tags=[*run_tags(config), *filter(None, env_tags)],
            job_type=config["wandb"]["job_type"],
            dir=os.environ.get("WANDB_DIR") or self.job.run_dir,
            config={
                **config,
                "model": fill_from_data(config["model"], spec),
                "candidate": candidate(config, self.job.path, self.job.overrides),
                "run_dir": self.job.run_dir,
            },
            settings=wandb.Settings(
                silent=True,  # it would print 15 lines
                init_timeout=INIT_SECONDS,
                finish_timeout=FINISH_SECONDS,
                finish_timeout_raises=True,
            ),
        )
        for axis in ("step", "seconds", "epoch"):  # to choose as x, not to look at
            run.define_metric(axis, hidden=True)
        run.define_metric("*", step_metric="step")
        run.define_metric(config["monitor"], step_metric="step", summary=config["monitor_mode"])
        state["url"] = run.url if state["mode"] == "online" else None
        state["directory"] = str(Path(run.dir).parent)
        self.say(f"W&B: {state['url'] or 'offline, in ' + state['directory']}")

    def log_event(self, number: int, event: dict[str, Any]) -> None:
        """Log an event as W&B's step ``number``; charts use the event's own ``step`` as x-axis.

        After a crash, W&B ignores events of the resumed run that it already has.
        """
        if self.run is None:
            return
        values = {name: value for name, value in event.items() if name != "media"}
        try:
            for name, entry in event.get("media", {}).items():
                values[name] = wandb_medium(entry, self.job.path / "media")
            self.run.log(values, step=number)
            if time.monotonic() - self.probed_at > PROBE_SECONDS:
                self.check_disk()
        except Exception as error:  # whatever W&B raises
            self.note_problem(describe(error), "logging without it")
            self.run = None

    def finalize(self, summary: dict[str, Any]) -> None:
        """Finish the W&B run with its summary and exit code, within a time limit."""
        global server_has_failed
        if self.run is None:
            return
        monitor = summary["monitor"]  # left out: define_metric has its best value
        known = {name: value for name, value in summary.items() if name not in ("wandb", monitor)}
        try:
            self.run.summary.update(known)
            if summary["status"] == "interrupted":
                self.run.mark_preempting()
            self.run.finish(exit_code=0 if summary["status"] in SUCCESSES else 1)
            self.check_disk()
        except Exception as error:
            server_has_failed = self.state["mode"] == "online"
            self.note_problem(describe(error), "it has only part of the run")

    def check_disk(self) -> None:
        """Warn once if W&B's folder is not writable: its client then drops data silently."""
        self.probed_at = time.monotonic()
        folder = self.state["directory"]
        if self.state["problem"] is None and folder and (problem := why_not_writable(folder)):
            self.note_problem(f"{folder}: {problem}", "it may have only part of the run")

    def note_problem(self, problem: str, consequence: str) -> None:
        """Record and print a problem, and the command to send the run later."""
        self.state["problem"] = problem
        again = f"python -m trainer.loggers.wandb_send {self.job.run_dir}"
        self.warn(f"W&B: {problem}; {consequence}. Send the run later: {again}")


def describe(error: Exception) -> str:
    return f"{type(error).__name__}: {reason(error)}"
