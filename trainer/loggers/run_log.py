"""The log of a run: metrics, media and a summary, passed on to writers.

``metrics.jsonl`` has every metric, one JSON object per line; W&B gets the same events, and reports
are built from the file. Only rank 0's log has writers, so the loop can log on every rank without
checking the rank.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.markup import escape

from core.collectives import broadcast
from core.environment import without_environment
from core.errors import ConfigError, Diverged, Interrupted
from core.files import no_link, without_nan
from core.instantiate import instantiate
from core.job import Job
from core.ranks import Ranks
from objectives.base import Media
from trainer.loggers.console import Console
from trainer.loggers.provenance import source_state, versions
from trainer.loggers.run_files import RunFiles, keep_events, media_folder, write_medium
from trainer.loggers.wandb_logger import WandbLogger
from trainer.loggers.writer import Writer, writing


class RunLog:
    """Passes everything logged to its writers. A context manager that always finalizes them.

    Args:
        writers: empty on ranks other than 0.
        num_events: number of lines already in ``metrics.jsonl``.

    Attributes:
        summary: the content of ``summary.json``.
    """

    def __init__(self, job: Job, writers: Sequence[Writer] = (), num_events: int = 0) -> None:
        self.run_dir, self.job = job.path, job
        self.writers = writers
        self.num_events = num_events
        self.summary: dict[str, Any] = {"status": "running", "error": None}

    def __enter__(self) -> RunLog:
        self.update_summary()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            message = without_environment(f"{type(error).__name__}: {error}", self.job.recordable)
            self.summary |= {"status": status_of(error), "error": message}
        elif self.summary["status"] == "running":
            is_stopped = self.summary.get("stop_reason")
            self.summary["status"] = "stopped" if is_stopped else "completed"
        try:
            with suppress(ConfigError):  # a full disk, which the last attempt reports
                self.update_summary()  # before W&B, which can be slow or be interrupted
            for writer in self.writers:
                writer.finalize(self.summary)
        finally:
            self.update_summary()

    def update_summary(self, values: dict[str, Any] | None = None) -> None:
        """Add ``values`` to the summary and write it."""
        self.summary |= values or {}
        for writer in self.writers:
            writer.write_summary(self.summary)

    def write_header(self, spec: Any, facts: dict[str, Any], notes: Sequence[str]) -> None:
        """After everything is built, print the data's ``notes`` and start the writers."""
        for note in notes:
            self.print(note)
        for writer in self.writers:
            writer.write_header(spec, facts)
        self.update_summary(facts)

    def print(self, text: str) -> None:
        """Print a note to the user."""
        for writer in self.writers:
            writer.print(f"[yellow]{escape(text)}[/yellow]")

    def start_progress(self, total_steps: int, step: int) -> None:
        """Mark the start of training, at update ``step``."""
        self.summary["startup_seconds"] = round(time.time() - self.job.started_at, 3)
        for writer in self.writers:
            writer.start_progress(total_steps, step)

    def update_progress(self, step: int) -> None:
        for writer in self.writers:
            writer.update_progress(step)

    def log_metrics(
        self, values: dict[str, float], step: int, epoch: float, seconds: float
    ) -> None:
        """Log values such as ``train/loss`` and ``val/accuracy`` at update ``step``."""
        self.log_event({"step": step, "epoch": epoch, "seconds": round(seconds, 4), **values})
        self.note_results(values)

    def note_results(self, values: dict[str, Any]) -> None:
        """Keep the latest evaluation metrics in the summary."""
        evaluated = ("train_eval/", "val/", "test/")
        self.summary |= {name: v for name, v in values.items() if name.startswith(evaluated)}

    def log_event(self, event: dict[str, Any]) -> None:
        for writer in self.writers:
            writer.log_event(self.num_events, without_nan(event))
        self.num_events += 1

    def log_evaluation(
        self, step: int, seconds: float, metrics: dict[str, float], is_best: bool
    ) -> None:
        """Show the metrics of an evaluation, after ``seconds`` of training."""
        for writer in self.writers:
            writer.log_evaluation(step, seconds, metrics, is_best)

    def log_media(self, split: str, step: int, make: Callable[[Path], Media]) -> None:
        """Save the media that ``make`` returns to the run directory's ``media/``, and log them.

        Args:
            make: called with a folder for its own files, and only if there are writers.

        Raises:
            ConfigError: if the folder is not writable.
        """
        if not self.writers:
            return
        folder = media_folder(self.run_dir, split, step)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            media = make(folder)
        for title, medium in media.items():
            entry = write_medium(medium, title, folder, self.run_dir)
            self.log_event({"step": step, "media": {f"{split}/{title}": entry}})
        with suppress(OSError):  # not empty
            folder.rmdir()


def open_run_log(
    config: dict[str, Any],
    job: Job,
    ranks: Ranks,
    num_events: int = 0,
    wandb: dict[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> RunLog:
    """Open this process's log in rank 0's run directory, which all processes share.

    Args:
        num_events: number of existing events to keep when resuming.
        wandb: state of the W&B run to continue, if any.
        notes: messages for the user.
    """
    own_dir, job = job.path, broadcast(job)
    if own_dir != job.path:
        with suppress(OSError):  # not empty
            own_dir.rmdir()  # Hydra made it for a process that torchrun started
    if not ranks.is_main:
        redirect_output(job.path / f"rank_{ranks.rank}.log")
        return RunLog(job, num_events=num_events)
    record = job.recordable or config
    user_writers = [
        build_logger(node, f"loggers[{i}]", job) for i, node in enumerate(config["loggers"])
    ]
    console = Console(job, config["trainer"]["progress"], config["data"]["batch_size"])
    num_kept, earlier = 0, dict[str, Any]()  # only the last value of each metric, to save memory
    for event in keep_events(job.path / "metrics.jsonl", num_events):
        console.log_event(num_kept, event)
        earlier |= event
        num_kept += 1
    wandb_logger = WandbLogger(
        settings=config["wandb"],
        config=record,
        job=job,
        earlier=wandb or {},
        say=lambda text: console.show(escape(text)),
        warn=lambda text: console.print(escape(text)),
    )
    run_log = RunLog(job, [RunFiles(record, job), console, wandb_logger, *user_writers], num_kept)
    run_log.summary |= {
        "seed": config["seed"],
        "overrides": list(job.overrides),
        "monitor": config["monitor"],
        "monitor_mode": config["monitor_mode"],
        "best": None,
        "target": None,
        **source_state(),
        "versions": versions(),
        "wandb": wandb_logger.state,
    }
    run_log.note_results(earlier)
    if lost := num_events - num_kept:
        notes = [*notes, f"metrics.jsonl: the last {lost} events are lost"]
    for note in notes:
        run_log.print(without_environment(note, record))
    return run_log


def build_logger(node: dict[str, Any], where: str, job: Job) -> Writer:
    """Build a user-defined writer.

    Raises:
        ConfigError: if it is not a :class:`Writer`, or a setting is wrong.
    """
    writer = instantiate(node, where, run_dir=job.path)
    if not isinstance(writer, Writer):
        raise ConfigError(f"{where}={node}: a logger must be a trainer.loggers.writer.Writer")
    return writer


def redirect_output(file: Path) -> None:
    """Redirect stdout and stderr to ``file`` until exit, when libraries may still print."""
    with open(file, "a", opener=no_link) as opened:
        for descriptor in (1, 2):
            os.dup2(opened.fileno(), descriptor)


def status_of(error: BaseException) -> str:
    if isinstance(error, Diverged):
        return "diverged"
    return "interrupted" if isinstance(error, KeyboardInterrupt | Interrupted) else "failed"
