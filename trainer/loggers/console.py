"""What a person sees of a run: a live line on a terminal, plain lines elsewhere, a final table."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from core.errors import ConfigError

REFRESH_SECONDS = 0.25  # live line
PLAIN_SECONDS = 30.0  # between plain progress lines, where there is no terminal
LOG_WIDTH = 120


class Terminal(RichConsole):
    """One whose reader may go away: the run goes on, and ``train.log`` has what it says."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what comes from elsewhere


class Console:
    """Rank 0's console: the terminal and ``train.log`` side by side."""

    def __init__(self, log_file: Path, show_progress: bool, stream: IO[str] | None = None) -> None:
        self.terminal = Terminal(file=stream or sys.stdout, highlight=False, soft_wrap=True)
        self.file = log_file.open("a", encoding="utf-8")
        self.log = RichConsole(file=self.file, width=LOG_WIDTH, highlight=False, soft_wrap=True)
        self.show_progress = show_progress
        self.live: Progress | None = None
        self.shown_at = self.started_at = time.monotonic()
        self.started_step = 0

    def print(self, text: str) -> None:
        """A line, with rich's markup."""
        self.terminal.print(text)
        self.write(text)

    def start(self, total_steps: int, step: int) -> None:
        """Begin to show progress towards ``total_steps`` updates."""
        self.total_steps, self.started_step = total_steps, step
        self.started_at = self.shown_at = time.monotonic()
        if self.show_progress and self.terminal.is_terminal:
            self.live = Progress(
                BarColumn(bar_width=24),  # gives way on a narrow terminal
                MofNCompleteColumn(table_column=Column(no_wrap=True)),
                TextColumn("{task.fields[progress]}"),
                TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
                TextColumn("left"),
                console=self.terminal,
                transient=True,
                auto_refresh=False,  # no thread of its own: refreshed from the loop
            )
            self.task = self.live.add_task("", total=total_steps, completed=step, progress="")
            self.live.start()

    def advance(self, step: int, batch_size: int, losses: dict[str, float]) -> None:
        """Show where the run is; costs a clock reading unless it is time to draw.

        Args:
            losses: of training, named ``train/loss`` or, of several phases, ``train/PHASE/loss``.
        """
        now = time.monotonic()
        if now - self.shown_at < (REFRESH_SECONDS if self.live else PLAIN_SECONDS):
            return
        self.shown_at = now
        samples = (step - self.started_step) * batch_size
        rate = f"{samples / max(now - self.started_at, 1e-9):,.0f} samples/s"
        shown = [
            f"{name.removeprefix('train/').removesuffix('/loss')} {format_metric(name, value)}"
            for name, value in losses.items()
        ]
        if self.live is not None:
            progress = "  ".join([rate, *shown])
            self.live.update(self.task, completed=step, progress=progress, refresh=True)
        elif self.show_progress:
            left = (now - self.started_at) / max(step - self.started_step, 1)
            left *= self.total_steps - step
            parts = [f"step {step}/{self.total_steps}", rate, *shown, f"{left:.0f} s left"]
            self.print("  ".join(parts))

    def stop(self) -> None:
        """Take the live line away."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    def table(self, title: str, rows: list[tuple[str, str]]) -> None:
        grid = Table(title=title, show_header=False, title_justify="left", title_style="bold")
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in rows:
            grid.add_row(name, escape(value))
        self.terminal.print(grid, soft_wrap=False)
        self.write(grid, soft_wrap=False)

    def write(self, content: str | Table, soft_wrap: bool | None = None) -> None:
        """To ``train.log``, at once.

        Raises:
            ConfigError: the disk is full.
        """
        try:
            self.log.print(content, soft_wrap=soft_wrap)
            self.file.flush()
        except OSError as error:
            raise ConfigError(f"cannot write {self.file.name}: {error.strerror}") from error

    def close(self) -> None:
        self.stop()
        with suppress(OSError):  # a full disk has been told of
            self.file.close()


def format_metric(name: str, value: float) -> str:
    """Shares as percentages, everything else with four digits."""
    if name.endswith("accuracy"):
        return f"{value:.2%}"
    return f"{value:.4f}" if 0.001 <= abs(value) < 1e5 or value == 0 else f"{value:.3e}"
