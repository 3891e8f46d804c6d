"""Console output: a progress bar on a terminal, plain lines elsewhere, and a final table."""

import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from core.files import no_link
from core.job import Job
from core.records import printable
from trainer.loggers.writer import Writer, writing

REFRESH_SECONDS = 0.25  # of the progress bar
PLAIN_SECONDS = 30.0  # between progress lines without a terminal
LOG_WIDTH = 120
BUSY_LOAD = 2.0  # load average per core


class Terminal(RichConsole):
    """A rich console that survives a closed pipe: the run continues, logging to ``train.log``."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for other writers


class Console(Writer):
    """Writes to the terminal and to ``train.log``.

    Args:
        job: the job, whose run directory has ``train.log``.
        show_progress: whether to show progress besides evaluations and messages.
        batch_size: samples per update.
    """

    def __init__(
        self, job: Job, show_progress: bool, batch_size: int, stream: IO[str] | None = None
    ) -> None:
        self.job, self.show_progress, self.batch_size = job, show_progress, batch_size
        self.terminal = Terminal(file=stream or sys.stdout, highlight=False)
        self.losses: dict[str, float] = {}  # last logged training losses
        self.live: Progress | None = None
        self.shown_at = self.started_at = time.monotonic()
        self.started_step = 0
        self.num_threads = 1  # for computation on the CPU

    def print(self, text: str) -> None:
        self.show(text, of_trials=True)

    def show(self, content: str | Table, unbroken: bool = False, of_trials: bool = False) -> None:
        """Print a line or a table to the terminal and to ``train.log``.

        Args:
            unbroken: never wrap the line, so that a command can be copied into a shell.
            of_trials: also print to the terminal if the job is a trial of a study.

        Raises:
            ConfigError: if ``train.log`` cannot be written, such as on a full disk.
        """
        is_text = isinstance(content, str)
        content = printable(content) if isinstance(content, str) else content
        if of_trials or not self.job.is_trial:
            # wrap between words on a terminal, but not in a file or a pipe
            is_whole = is_text and (unbroken or not self.terminal.is_terminal)
            self.terminal.print(content, soft_wrap=is_whole)
        file = self.job.path / "train.log"
        with writing(file), open(file, "a", encoding="utf-8", opener=no_link) as opened:
            log = RichConsole(file=opened, width=LOG_WIDTH, highlight=False)
            log.print(content, soft_wrap=is_text)

    def write_header(self, spec: Any, facts: dict[str, Any]) -> None:
        self.num_threads = facts["num_threads"] if facts["device"] == "cpu" else 1
        synthetic = " (synthetic)" if facts["synthetic_data"] else ""
        frozen = facts["num_frozen_parameters"]
        more = f" and {frozen:,} frozen" if frozen else ""
        self.show(
            f"{facts['model']}, {facts['num_parameters']:,} parameters{more}, on "
            f"{escape(facts['data'])}{synthetic}: {facts['planned_steps']} updates of "
            f"{facts['batch_size']} samples, {facts['precision']} on {facts['device']}"
        )
        sizes = facts["num_samples"]
        parts = [
            f"{name} on {count:,} of {sizes[name]:,} samples"
            for name, count in facts["num_evaluated"].items()
            if count < sizes[name]
        ]
        if parts:
            self.show(f"trainer.limit_eval_steps: {', '.join(parts)}")
        if "resumed_from" in facts:
            step, last = facts["resumed_at_step"], facts["planned_steps"]
            line = f"resuming at step {step} of {last}"
            if step > last:
                line = f"no more training: {step} updates were made, and the run ends after {last}"
            self.show(f"{line}, from {escape(facts['resumed_from'])}")

    def start_progress(self, total_steps: int, step: int) -> None:
        self.total_steps, self.started_step = total_steps, step
        self.started_at = self.shown_at = time.monotonic()
        if self.show_progress and self.terminal.is_terminal:
            self.live = Progress(
                BarColumn(bar_width=24),  # shrinks on a narrow terminal
                MofNCompleteColumn(table_column=Column(no_wrap=True)),
                TextColumn("{task.fields[progress]}"),
                TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
                TextColumn("left"),
                console=self.terminal,
                transient=True,
                auto_refresh=False,  # no refresh thread: the loop refreshes it
            )
            self.task = self.live.add_task("", total=total_steps, completed=step, progress="")
            self.live.start()

    def update_progress(self, step: int) -> None:
        """Show the progress. Cheap: only reads the clock until the next refresh is due."""
        now = time.monotonic()
        if now - self.shown_at < (REFRESH_SECONDS if self.live else PLAIN_SECONDS):
            return
        self.shown_at = now
        self.say_if_busy()
        seconds, done = max(now - self.started_at, 1e-9), max(step - self.started_step, 1)
        shown = [f"{done * self.batch_size / seconds:,.0f} samples/s"]
        for name, value in self.losses.items():
            short = name.removeprefix("train/").removesuffix("/loss")
            shown.append(f"{short} {format_metric(name, value)}")
        if self.live is not None:
            self.live.update(self.task, completed=step, progress="  ".join(shown), refresh=True)
        elif self.show_progress:
            left = seconds / done * (self.total_steps - step)
            self.show("  ".join([f"step {step}/{self.total_steps}", *shown, f"{left:.0f} s left"]))

    def say_if_busy(self) -> None:
        """Warn once if the machine is overloaded, which makes threads wait for each other."""
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        if self.num_threads > 1 and load > BUSY_LOAD * cores:
            self.num_threads = 1
            self.show(
                f"[yellow]the machine is busy, load {load:.0f} on {cores} cores: if this is slow, "
                "trainer.num_threads=1 may be many times faster[/yellow]"
            )

    def log_event(self, number: int, event: dict[str, Any]) -> None:
        for name, value in event.items():
            if name.startswith("train/") and name.endswith("loss") and value is not None:
                self.losses[name] = value

    def log_evaluation(
        self, step: int, seconds: float, metrics: dict[str, float], is_best: bool
    ) -> None:
        shown = "  ".join(
            f"{name} {format_metric(name, v)}" for name, v in metrics.items() if is_shown(name)
        )
        mark = "  [green]best[/green]" if is_best else ""
        self.show(f"step {step}  {seconds:.1f} s  {shown}{mark}")

    def finalize(self, summary: dict[str, Any]) -> None:
        if self.live is not None:
            self.live.stop()
        if summary["status"] == "diverged":
            self.show(f"[red]{escape(summary.get('stop_reason') or '')}[/red]")
        has_saved = "checkpoint_step" in summary
        if summary["status"] == "interrupted" or (summary["status"] == "failed" and has_saved):
            for line in self.resume_lines(summary):
                self.show(escape(line), unbroken=True)
        if summary["error"] is None and "steps" in summary:
            grid = Table(title="Result", show_header=False, title_justify="left")
            grid.title_style = "bold"
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column(overflow="fold")
            for name, value in result_rows(summary, self.job.path).items():
                grid.add_row(name, escape(printable(value)))
            self.show(grid)
            for line in wandb_commands(summary["wandb"]):
                self.show(escape(line), unbroken=True)

    def resume_lines(self, summary: dict[str, Any]) -> Iterator[str]:
        """Lines that name the checkpoint of a run that ended early and the command to resume."""
        step, last = summary.get("checkpoint_step"), self.job.path / "checkpoints" / "last.pt"
        if step is None and not last.exists():
            yield "nothing was saved: there is no checkpoint yet"
            return
        of = f"step {step} of {summary['planned_steps']}, in " if step is not None else ""
        yield f"saved          {of}{last}"
        if self.job.sweep is None:  # a sweep prints its own command
            yield f"continue with  {self.job.continuation}"


def wandb_commands(state: dict[str, Any]) -> Iterator[str]:
    """Lines with the commands to view or upload a W&B run that was logged offline."""
    if state["directory"] and not state["url"]:
        last = Path(state["directory"])
        _, _, run_id = last.name.rpartition("-")  # a resumed run has one folder per part
        parts = sorted(last.parent.glob(f"offline-run-*-{run_id}")) or [last]
        yield f"view it in a terminal with  wandb leet {shlex.quote(str(last))}"
        yield f"upload it to W&B with       wandb sync {shlex.join(map(str, parts))}"


def result_rows(summary: dict[str, Any], run_dir: Path) -> dict[str, str]:
    """Rows of the final table, by name."""
    rows, monitor = {}, summary["monitor"]
    if best := summary["best"]:
        value = format_metric(monitor, best["value"])
        rows[f"best {monitor}"] = f"{value} at step {best['step']} (epoch {best['epoch']:.3g})"
    for name, value in summary.items():
        if name.startswith("test/") and is_shown(name):
            rows[name] = format_metric(name, value)
    if target := summary["target"]:
        rows["target reached"] = f"step {target['step']}, {target['seconds']:.1f} s"
    rows["training"] = (
        f"{summary['train_seconds']:.1f} s, {summary['steps']} updates, "
        f"{summary['samples_per_second']:,.0f} samples/s"
    )
    rows["model"] = (
        f"{summary['num_parameters']:,} parameters, {summary['precision']} on {summary['device']}"
    )
    rows["run directory"] = str(run_dir)
    if url := summary["wandb"]["url"]:
        rows["W&B"] = url
    return rows


def is_shown(name: str) -> bool:
    """Whether to print a metric. Per-class ones, ``val/f1/cat``, go to W&B and the files only."""
    return name.count("/") < 2


def format_metric(name: str, value: float) -> str:
    """Accuracies as percentages, everything else with four digits."""
    if name.endswith("accuracy"):
        return f"{value:.2%}"
    return f"{value:.4f}" if 0.001 <= abs(value) < 1e5 or value == 0 else f"{value:.3e}"
