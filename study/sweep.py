"""A sweep as a person sees it: what each job is, and a table of all of them at the end."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.composed import typed_overrides
from study.gpu_slots import take_gpu
from trainer.loggers.console import format_metric

ROOT = Path(__file__).parent.parent


class Sweep(Callback):
    """Hydra's callback: named in ``conf/config.yaml``, called around the jobs of a sweep."""

    directory: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        Sweep.directory = Path(config.hydra.sweep.dir).absolute()
        share_directory(config, Sweep.directory)
        prepare_environment()

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if config.hydra.mode is not None and config.hydra.mode.name == "MULTIRUN":
            take_gpu()
            if not config.hydra.launcher._target_.endswith(".BasicLauncher"):
                from trainer.signals import end_with_parent  # imports torch, as the job will

                # the live lines of jobs that run at once would overwrite each other
                os.environ["TTY_COMPATIBLE"] = "0"
                end_with_parent()
            title = " ".join(typed_overrides(config.hydra))
            print(f"\n=== job {config.hydra.job.num}: {title}", flush=True)

    @staticmethod
    def finish() -> bool:
        """Print the table of the sweep, if there was one; whether all of its jobs are well."""
        if Sweep.directory is None:
            return True
        directory, Sweep.directory = Sweep.directory, None
        summaries = read_summaries(directory)
        if (directory / "study.json").exists():  # it has printed its results; here what went wrong
            summaries = {name: s for name, s in summaries.items() if s.get("status") == "failed"}
        print_table(directory, summaries)
        return not any(s.get("error") for s in summaries.values())


def share_directory(config: DictConfig, directory: Path) -> None:
    """Give every job the same sweep directory, even where the working directory is another one.

    Launchers compose each job's config anew, from Hydra's overrides of the command line.
    """
    quoted = str(directory).replace("'", "\\'")
    with read_write(config), open_dict(config):
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{quoted}'")


def prepare_environment() -> None:
    """Let the workers of launchers import the project's packages, wherever they run."""
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(ROOT), *filter(None, others)]))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent unless asked for


def read_summaries(directory: Path) -> dict[str, dict[str, Any]]:
    """The summaries of all jobs in a sweep directory, in the order of their numbers."""
    summaries = {}
    for folder in directory.iterdir() if directory.is_dir() else ():
        if not (folder / "summary.json").exists() and not (folder / ".hydra").is_dir():
            continue
        summaries[folder.name] = read_summary(folder / "summary.json")
    return dict(sorted(summaries.items(), key=lambda item: (len(item[0]), item[0])))


def read_summary(file: Path) -> dict[str, Any]:
    """What a job recorded at its end, or what is wrong with the record."""
    if not file.exists():
        return {"status": "interrupted", "error": "no summary.json"}
    try:
        summary = json.loads(file.read_text())
        monitor, best = str(summary.get("monitor", "")), summary.get("best")
        return summary | {
            "overrides": [str(override) for override in summary.get("overrides") or ()],
            "status": str(summary["status"]),
            "monitor": monitor,
            "best": None if best is None else float(best["value"]),
            "test": number(summary.get(monitor.replace("val/", "test/"))),
            "train_seconds": number(summary.get("train_seconds")),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"status": "damaged", "error": "summary.json is damaged"}


def number(value: Any) -> float | None:
    return None if value is None else float(value)


def print_table(directory: Path, summaries: dict[str, dict[str, Any]]) -> None:
    table = Table(title="Sweep", title_justify="left", title_style="bold")
    for column in ("job", "overrides", "status", "best", "test", "train s"):
        table.add_column(column, overflow="fold")
    given = [summary["overrides"] for summary in summaries.values() if "overrides" in summary]
    shared = set(given[0]).intersection(*given) if len(given) > 1 else set()
    for name, summary in summaries.items():
        own = [o for o in summary.get("overrides", []) if o not in shared and "wandb." not in o]
        monitor = summary.get("monitor", "")
        best, test, seconds = (summary.get(key) for key in ("best", "test", "train_seconds"))
        status, reason = escape(summary["status"]), escape(str(summary.get("error") or ""))
        table.add_row(
            name,
            escape(" ".join(own)),
            f"[red]{status}[/red] {reason}" if reason else status,
            "" if best is None else format_metric(monitor, best),
            "" if test is None else format_metric(monitor, test),
            "" if seconds is None else f"{seconds:.1f}",
        )
    console = Console(file=sys.stdout, highlight=False)
    if summaries:
        console.print(table)
    if shared:
        common = " ".join(override for override in given[0] if override in shared)
        console.print(f"all with         {escape(common)}", soft_wrap=True)
    console.print(f"sweep directory  {directory}", soft_wrap=True)
