"""Tables on the console: all jobs of a sweep, and means over seeds."""

import shlex
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.records import read_record, showable
from trainer.loggers.console import LOG_WIDTH, format_metric

ENDED = ("completed", "stopped", "diverged", "pruned")
JUDGED = ("completed", "stopped")

Summaries = dict[str, dict[str, Any]]  # by job name


def read_summaries(directory: Path) -> Summaries:
    """Read the summaries of all jobs in a sweep directory, in the order of their numbers."""
    summaries: Summaries = {}
    for folder in directory.iterdir() if directory.is_dir() else ():
        if not (folder / "summary.json").exists() and not (folder / ".hydra").is_dir():
            continue
        summaries[folder.name] = read_summary(folder / "summary.json")
    return dict(sorted(summaries.items(), key=lambda item: (len(item[0]), item[0])))


def read_summary(file: Path) -> dict[str, Any]:
    """Read the summary of a job; says what is wrong if there is none or it is damaged."""
    if not file.exists():
        return {"status": "interrupted", "error": "no summary.json"}
    try:
        summary = showable(read_record(file))
        if summary["status"] == "running":  # the sweep is over, so joblib killed the worker
            summary["status"] = "killed"
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


def print_sweep(directory: Path, summaries: Summaries, is_study: bool, lines: list[str]) -> None:
    """Print the tables, the sweep directory and the next commands.

    Args:
        is_study: omit means, since a study prints its own table of results.
        lines: further lines to print below.
    """
    console = wide_console()
    given = [summary["overrides"] for summary in summaries.values() if "overrides" in summary]
    shared = set(given[0]).intersection(*given) if len(given) > 1 else set()
    for summary in summaries.values():
        overrides = summary.get("overrides", [])
        summary["own"] = [o for o in overrides if o not in shared and "wandb." not in o]
    if summaries:
        console.print(table_of_jobs(summaries))
    candidates = {} if is_study else by_candidate(summaries)
    if any(sum(s["status"] in JUDGED for s in group) > 1 for group in candidates.values()):
        console.print(table_of_means(candidates))
    if shared:
        common = " ".join(override for override in given[0] if override in shared)
        console.print(f"all with         {escape(common)}", soft_wrap=True)
    console.print(f"sweep directory  {escape(str(directory))}", soft_wrap=True)
    for line in lines:
        console.print(escape(line), soft_wrap=True)
    if sum(summary["status"] in JUDGED for summary in summaries.values()) > 1 and not is_study:
        print_report_command(console, directory)


def wide_console() -> Console:
    """A console whose lines have a fixed length in a log file."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else LOG_WIDTH)


def titled_table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_report_command(console: Console, directory: Path) -> None:
    command = f"python report.py {shlex.quote(str(directory))}"
    console.print(f"compare          {escape(command)}", soft_wrap=True)


def table_of_jobs(summaries: Summaries) -> Table:
    table = titled_table("Sweep", "job", "overrides", "status", "best", "test", "train s")
    for name, summary in summaries.items():
        monitor = summary.get("monitor", "")
        best, test, seconds = (summary.get(key) for key in ("best", "test", "train_seconds"))
        status, reason = escape(summary["status"]), str(summary.get("error") or "")
        reason = escape(reason.removeprefix(f"Interrupted: {status}").strip())
        table.add_row(
            name,
            escape(" ".join(summary["own"])),
            f"[red]{status}[/red] {reason}" if reason else status,
            "" if best is None else format_metric(monitor, best),
            "" if test is None else format_metric(monitor, test),
            "" if seconds is None else f"{seconds:.1f}",
        )
    return table


def by_candidate(summaries: Summaries) -> dict[str, list[dict[str, Any]]]:
    """Group the jobs that differ only in their seeds, by the overrides they share."""
    groups = defaultdict(list)
    for summary in summaries.values():
        words = [word for word in summary["own"] if not word.startswith("seed=")]
        groups[" ".join(words)].append(summary)
    return groups


def table_of_means(candidates: dict[str, list[dict[str, Any]]]) -> Table:
    title = "Mean over seeds ± standard deviation"
    table = titled_table(title, "candidate", "runs", "best", "test")
    for name, group in candidates.items():
        ended = [summary for summary in group if summary["status"] in JUDGED]
        of_total = f" of {len(group)}" if len(ended) < len(group) else ""
        means = [mean_and_spread(ended, key) for key in ("best", "test")]
        table.add_row(escape(name) or "all", f"{len(ended)}{of_total}", *means)
    return table


def mean_and_spread(ended: list[dict[str, Any]], key: str) -> str:
    values = [summary[key] for summary in ended if summary[key] is not None]
    if not values:
        return ""
    monitor = ended[0]["monitor"]
    mean = format_metric(monitor, fmean(values))
    return f"{mean} ± {format_metric(monitor, stdev(values))}" if len(values) > 1 else mean
