"""Compare finished runs: prints a table, writes report.csv and report.html next to the runs.

    python report.py multirun/<sweep>
    python report.py outputs/<run> outputs/<run> --output comparison
    python report.py --help

Reads only the runs' local records: no network, GPU or checkpoint is needed.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.comparison import compare
from analysis.page import Document, Report
from analysis.runs import ReportError
from analysis.sweep import Sweep, read_sweep
from analysis.tables import latex
from analysis.workload_report import WorkloadsReport
from analysis.workloads import by_workload
from core.errors import ConfigError
from core.files import write_text
from core.records import printable

PLAIN_WIDTH = 140  # columns, if the output is not a terminal


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parse(arguments)
    several = len(options.directories) > 1
    folder = options.output or (Path("report") if several else options.directories[0])
    try:
        sweep = read_sweep(options.directories, options.by, options.metric)
        report = report_of(sweep, folder.resolve().name, options)
        show(report)
        files = write(report, folder, options)
        print(*files, sep="\n")
        if options.wandb and isinstance(report, Report):
            from analysis.wandb_report import publish  # slow: imports wandb

            print(publish(report, files))
    except (ReportError, ConfigError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: cannot write {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compare finished runs: a table, report.csv and a self-contained report.html."
    )
    add = parser.add_argument
    add("directories", nargs="+", type=Path, help="a sweep, or several run directories")
    add("--output", type=Path, help="directory for the files (default: the sweep directory)")
    add(
        "--by",
        action="append",
        default=[],
        metavar="KEY",
        help="a group or config key that tells candidates apart, such as optim or optimizer.lr; "
        "may be repeated (default: every choice that differs)",
    )
    add("--metric", help="compare on this metric (default: what the runs monitor)")
    add("--mode", choices=("max", "min"), help="whether a larger or a smaller --metric is better")
    add("--against", metavar="NAME", help="also compare all others with this candidate only")
    add("--target", type=float, help="report the cost of reaching this value of the metric")
    add(
        "--figures",
        type=Path,
        metavar="DIR",
        help="save every figure as SVG, PDF and PNG, at the width of a paper's column and page",
    )
    add("--latex", type=Path, metavar="FILE", help="the table of results as LaTeX (booktabs)")
    add("--markdown", type=Path, metavar="FILE", help="the report as Markdown")
    add("--wandb", action="store_true", help="log the report to the W&B group of the runs")
    return parser.parse_args(arguments)


def report_of(sweep: Sweep, name: str, options: argparse.Namespace) -> Document:
    """Build the report of a single comparison, or of several workloads."""
    if workloads := by_workload(sweep, options.by, options.metric):
        if options.target is not None or options.wandb or options.against:
            option = "--wandb" if options.wandb else "--against" if options.against else "--target"
            raise ReportError(f"{option} is for the report of one study, not of several workloads")
        if options.mode and not options.metric:
            raise ReportError("several workloads: --mode needs --metric")
        return WorkloadsReport(workloads, name, options.metric, options.mode)
    comparison = compare(sweep.runs, options.metric, options.mode, options.target)
    counts = (("candidate", comparison.rows), ("run", sweep.runs))
    size = ", ".join(f"{len(items)} {noun}{'s' * (len(items) != 1)}" for noun, items in counts)
    return Report(comparison, sweep, f"{name}: {size}", options.against)


def show(report: Document) -> None:
    """Print the report to the terminal."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    console.print(escape(report.title), style="bold")
    for table in report.tables:
        grid = Table()
        for i, column in enumerate(table.columns):
            grid.add_column(escape(column), overflow="fold", no_wrap=i == 0)
        for cells in table.to_numpy():
            grid.add_row(*map(escape, cells))
        console.print(grid)
    console.print(escape(report.notes), style="dim")
    for claim in report.claims:
        console.print(escape(claim))
    for caveat in report.caveats:
        console.print(f"[yellow]note[/yellow] {escape(caveat)}")


def write(report: Document, folder: Path, options: argparse.Namespace) -> list[Path]:
    """Write ``report.csv``, ``report.html`` and the files the options name; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "report.csv", folder / "report.html"]
    contents = [report.frame.to_csv(index=False), report.page()]  # complete before any is written
    for file, content in zip(files, contents, strict=True):
        write_text(content, file)
    # these in place: the user may name a device such as /dev/stdout
    if options.latex:
        text = latex(report.tables[0], f"{report.title}. {report.notes}")
        options.latex.write_text(text, encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(report.markdown(), encoding="utf-8")
    if options.figures:
        report.save_figures(options.figures)
    named = (options.latex, options.markdown, options.figures)
    return [*files, *filter(None, named)]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
