"""The records of a run: ``metrics.jsonl``, ``summary.json``, the console and the W&B mirror.

``metrics.jsonl`` is the truth; W&B is fed the same events, and reports read it. Only rank 0 holds
:class:`Records`; see :mod:`trainer.open_records` for the others.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
import yaml
from rich.markup import escape
from torch import Tensor, nn

from core.errors import ConfigError, Diverged, Interrupted
from core.files import without_nan, write_json, write_text
from core.job import Job
from core.progress import Progress
from data.spec_file import spec_content
from models.build import num_parameters
from objectives.base import Media, Objective
from trainer.checkpoint import Start
from trainer.distributed.device import device_name, peak_memory_bytes, processor_name
from trainer.loggers.console import Console, format_metric
from trainer.loggers.media import keep_medium, media_folder
from trainer.loggers.provenance import source_state, versions
from trainer.phase import optimizer_state_bytes
from trainer.wandb_mirror import WandbMirror

if TYPE_CHECKING:
    from trainer.trainer import Trainer


class Records:
    """Everything a run leaves behind; as a context manager, it writes the summary come what may."""

    def __init__(self, config: dict[str, Any], job: Job, start: Start) -> None:
        self.run_dir = job.path
        self.job = job
        self.write_composed()
        earlier = keep_events(self.run_dir / "metrics.jsonl", start.num_events)
        self.console = Console(self.run_dir / "train.log", config["trainer"]["progress"])
        self.events = (self.run_dir / "metrics.jsonl").open("a", encoding="utf-8")
        self.num_events = len(earlier)
        self.mirror = WandbMirror(config, job, start.wandb)
        self.batch_size = int(config["data"]["batch_size"])
        self.losses: dict[str, float] = {}  # of training, the last that were recorded
        self.summary: dict[str, Any] = {
            "status": "failed",
            "error": None,
            "seed": config["seed"],
            "overrides": list(job.overrides),
            "monitor": config["monitor"],
            "monitor_mode": config["monitor_mode"],
            "best": None,
            "target": None,
            **source_state(),
            "versions": versions(),
        }
        for event in earlier:
            self.remember(event)
        for note in start.notes:
            self.console.print(f"[yellow]{escape(note)}[/yellow]")
        if len(earlier) < start.num_events:
            lost = start.num_events - len(earlier)
            self.console.print(f"[yellow]metrics.jsonl: the last {lost} events are lost[/yellow]")

    def write_composed(self) -> None:
        """Hydra's own record, which it would write before it is known whose the directory is."""
        for name, content in self.job.composed.items():
            (self.run_dir / ".hydra").mkdir(exist_ok=True)
            text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
            write_text(text, self.run_dir / ".hydra" / name)

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.console.stop()
            if error is not None:
                self.summary["status"] = status_of(error)
                self.summary["error"] = f"{kind.__name__ if kind else ''}: {error}".strip()
            elif self.summary["status"] == "failed":
                is_stopped = self.summary.get("stop_reason")
                self.summary["status"] = "stopped" if is_stopped else "completed"
            self.events.close()
            self.write_summary()  # before W&B, which may take its time or be interrupted
            try:
                self.mirror.finish(self.summary["status"])
            finally:
                self.mirror.abandon()  # Ctrl-C
                self.report_mirror()
        finally:
            self.mirror.abandon()  # what has no summary
            self.console.close()

    def report_mirror(self) -> None:
        """What became of the W&B run, and how to send it again."""
        problem = self.mirror.problem
        self.write_summary()
        if problem is not None:
            self.console.print(
                f"[yellow]{escape(problem)}; send the run again: python -m trainer.wandb_sync "
                f"{escape(str(self.run_dir))}[/yellow]"
            )

    def write_summary(self) -> None:
        self.summary["wandb"] = {**self.mirror.state(), "problem": self.mirror.problem}
        write_json(self.summary, self.run_dir / "summary.json")

    def begin(self, config: dict[str, Any], trainer: Trainer) -> None:
        """All is built: write ``config.yaml`` (the resolved config as run), describe it."""
        text = yaml.safe_dump(self.job.recordable or config, sort_keys=False, allow_unicode=True)
        write_text(text, self.run_dir / "config.yaml")
        write_json(spec_content(trainer.data.spec), self.run_dir / "spec.json")
        model, data = trainer.objective.model, trainer.data
        for note in data.notes:
            self.console.print(f"[yellow]{escape(note)}[/yellow]")
        self.summary |= {
            "num_parameters": num_parameters(model),
            "initial_weights_hash": trainer.initial_weights_hash,
            "data": data.spec.name,
            "synthetic_data": data.spec.synthetic,
            "num_samples": data.sizes(),
            "batch_size": data.batch_size,
            "horizon_steps": trainer.horizon.total_steps,
            "precision": trainer.precision,
            "device": device_name(trainer.device),
            "hardware": processor_name(),
            "world_size": trainer.ranks.world_size,
            "num_threads": torch.get_num_threads(),
        }
        self.console.print(
            f"{type(model).__name__}, {self.summary['num_parameters']:,} parameters, on "
            f"{data.spec.name}{' (synthetic)' if data.spec.synthetic else ''}: "
            f"{trainer.last_step} updates of {data.batch_size} samples, "
            f"{trainer.precision} on {self.summary['device']}"
        )
        self.mirror.start(self.num_events)

    def end(self, trainer: Trainer) -> None:
        """The run is over: what became of it, and the final table."""
        if trainer.diverged is not None:
            self.summary |= {"status": "diverged", "stop_reason": str(trainer.diverged)}
            self.console.print(f"[red]{escape(str(trainer.diverged))}[/red]")
        self.final_table()

    def measure(self, trainer: Trainer) -> None:
        """Bring the summary up to date with the trainer."""
        progress = trainer.progress
        seconds = progress.train_seconds
        timed = progress.optimizer_steps_timed
        self.summary |= {
            "steps": progress.step,
            "skipped_steps": progress.skipped,
            "epochs": round(progress.batches / trainer.horizon.steps_per_epoch, 4),
            "train_seconds": round(seconds, 4),
            "samples_per_second": progress.batches * self.batch_size / seconds if seconds else 0.0,
            "step_ms": 1000 * seconds / max(progress.batches, 1),
            "optimizer_step_ms": 1000 * progress.optimizer_seconds / timed if timed else None,
            "optimizer_state_bytes": optimizer_state_bytes(trainer.phases),
            "peak_memory_bytes": peak_memory_bytes(trainer.device),
            "best": progress.best and asdict(progress.best),
            "target": progress.target,
            "stop_reason": progress.stop_reason,
            "data_order_hash": trainer.data.order_hash(trainer.progress.batches),
        }

    def start(self, total_steps: int, step: int) -> None:
        """Training begins."""
        self.summary["startup_seconds"] = round(time.time() - self.job.started_at, 3)
        self.console.start(total_steps, step)

    def advance(self, step: int) -> None:
        self.console.advance(step, self.batch_size, self.losses)

    def log(self, values: dict[str, float], step: int, epoch: float, seconds: float) -> None:
        """One event: values named ``train/loss``, ``val/accuracy``, ``optim/lr``, ``time/...``."""
        event = {"step": step, "epoch": epoch, "seconds": round(seconds, 4), **values}
        self.write(event)
        self.remember(event)

    def remember(self, event: dict[str, Any]) -> None:
        """Keep the last of what the summary and the console show."""
        for name, value in event.items():
            if name.startswith("train/") and name.endswith("loss") and value is not None:
                self.losses[name] = value
            if name.startswith(("val/", "test/")):
                self.summary[name] = value

    def write(self, event: dict[str, Any]) -> None:
        event = without_nan(event)
        try:
            self.events.write(json.dumps(event) + "\n")
            self.events.flush()
        except OSError as error:
            raise ConfigError(f"cannot write {self.events.name}: {error.strerror}") from error
        self.num_events += 1

    def print(self, text: str) -> None:
        """A line that a person should see."""
        self.console.print(f"[yellow]{escape(text)}[/yellow]")

    def evaluation(self, progress: Progress, metrics: dict[str, float], is_best: bool) -> None:
        """A line for people."""
        values = {**self.losses, **metrics}
        shown = "  ".join(f"{name} {format_metric(name, v)}" for name, v in values.items())
        mark = "  [green]best[/green]" if is_best else ""
        self.console.print(f"step {progress.step}  {progress.train_seconds:.1f} s  {shown}{mark}")

    def show(
        self, objective: Objective, samples: dict[str, Tensor], split: Any, name: str, step: int
    ) -> None:
        """Keep and mirror what the objective has to show of the split ``name``."""
        if samples:
            folder = media_folder(self.run_dir, name, step)
            folder.mkdir(parents=True, exist_ok=True)
            self.keep(objective.media(samples, split, folder), folder, name, step)

    def preview(self, objective: Objective, model: nn.Module, step: int) -> None:
        """Keep and mirror what the objective has to show of ``model`` at an evaluation."""
        folder = media_folder(self.run_dir, "val", step)
        self.keep(objective.preview(model, folder), folder, "val", step)

    def keep(self, media: Media, folder: Path, name: str, step: int) -> None:
        for title, medium in media.items():
            entry = keep_medium(medium, title, folder, self.run_dir)
            self.write({"step": step, "media": {f"{name}/{title}": entry}})

    def wandb_state(self) -> dict[str, Any]:
        return self.mirror.state()

    def final_table(self) -> None:
        """The result and where it is."""
        summary = self.summary
        rows = [
            (name, format_metric(name, value))
            for name, value in summary.items()
            if name.startswith("test/")
        ]
        if summary["best"] is not None:
            best = summary["best"]
            shown = format_metric(summary["monitor"], best["value"])
            rows.insert(
                0,
                (
                    f"best {summary['monitor']}",
                    f"{shown} at step {best['step']} (epoch {best['epoch']:.3g})",
                ),
            )
        if summary["target"] is not None:
            target = summary["target"]
            rows.append(("target reached", f"step {target['step']}, {target['seconds']:.1f} s"))
        rows += [
            ("training", f"{summary['train_seconds']:.1f} s, {summary['steps']} updates, "
             f"{summary['samples_per_second']:,.0f} samples/s"),
            ("model", f"{summary['num_parameters']:,} parameters, {summary['precision']} on "
             f"{summary['device']}"),
            ("run directory", str(self.run_dir)),
        ]  # fmt: skip
        self.console.stop()
        self.console.table("Result", rows)


def keep_events(file: Path, count: int) -> list[dict[str, Any]]:
    """Cut ``metrics.jsonl`` back to its first ``count`` events: those the checkpoint knows of.

    Raises:
        ConfigError: one of them is damaged.
    """
    if not file.exists():
        return []
    lines = read_lines(file)
    events = parse_events(lines[:count], file)
    if len(lines) > count:
        write_text(b"".join(lines[:count]).decode(), file)
    return events


def read_events(file: Path) -> list[dict[str, Any]]:
    """All events of a ``metrics.jsonl``, but for a last line that a kill left unfinished.

    Raises:
        ConfigError: there is no such file, or it is damaged.
    """
    return parse_events([line for line in read_lines(file) if line.endswith(b"\n")], file)


def read_lines(file: Path) -> list[bytes]:
    try:
        return file.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error


def parse_events(lines: list[bytes], file: Path) -> list[dict[str, Any]]:
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
            if not isinstance(event, dict):
                raise ValueError
        except ValueError as error:
            raise ConfigError(f"{file} is damaged in line {number}") from error
        events.append(event)
    return events


def status_of(error: BaseException) -> str:
    if isinstance(error, Diverged):
        return "diverged"
    if isinstance(error, KeyboardInterrupt | Interrupted):
        return "interrupted"
    return "failed"
