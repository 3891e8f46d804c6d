"""A sweep as a person sees it: what each job is, and a table of all of them at the end."""

import json
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.console import format_metric


class Sweep(Callback):
    """Hydra's callback: named in ``conf/config.yaml``, called around the jobs of a sweep."""

    directory: Path | None = None
    failed = False

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        Sweep.directory = Path(config.hydra.sweep.dir).absolute()
        Sweep.failed = False

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if config.hydra.mode is not None and config.hydra.mode.name == "MULTIRUN":
            title = " ".join(config.hydra.overrides.task)
            print(f"\n=== job {config.hydra.job.num}: {title}", flush=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        Sweep.finish()

    @staticmethod
    def finish() -> None:
        """Print the table of the sweep, from the records in its directory."""
        if Sweep.directory is None:
            return
        directory, Sweep.directory = Sweep.directory, None
        summaries = read_summaries(directory)
        Sweep.failed = any(s.get("status") in ("failed", "interrupted") for s in summaries.values())
        print_table(directory, summaries)


def read_summaries(directory: Path) -> dict[str, dict[str, Any]]:
    """The summaries of all jobs in a sweep directory, in the order of their numbers."""
    summaries = {}
    for folder in directory.iterdir() if directory.is_dir() else ():
        if not (folder / ".hydra").is_dir():
            continue
        try:
            summaries[folder.name] = json.loads((folder / "summary.json").read_text())
        except (OSError, ValueError):
            summaries[folder.name] = {"status": "interrupted", "error": "no summary.json"}
    return dict(sorted(summaries.items(), key=lambda item: (len(item[0]), item[0])))


def print_table(directory: Path, summaries: dict[str, dict[str, Any]]) -> None:
    table = Table(title="Sweep", title_justify="left", title_style="bold")
    for column in ("job", "overrides", "status", "best", "test", "train s"):
        table.add_column(column, overflow="fold")
    for name, summary in summaries.items():
        best = summary.get("best")
        monitor = summary.get("monitor", "")
        twin = monitor.replace("val/", "test/")
        status = summary.get("status", "?")
        reason = summary.get("error") or ""
        table.add_row(
            name,
            escape(" ".join(summary.get("overrides", []))),
            status if status == "completed" else f"[red]{status}[/red] {escape(reason)}",
            format_metric(monitor, best["value"]) if best else "",
            format_metric(twin, summary[twin]) if summary.get(twin) is not None else "",
            f"{summary['train_seconds']:.1f}" if "train_seconds" in summary else "",
        )
    console = Console(file=sys.stdout, highlight=False)
    console.print(table)
    console.print(f"sweep directory  {directory}", soft_wrap=True)
