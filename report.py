"""Compare finished runs: a table here, report.csv and report.html beside the runs.

    python report.py multirun/<sweep>
    python report.py outputs/<run> outputs/<run> --output comparison
    python report.py --help

Everything is read from the runs' local records; no network, no GPU, no checkpoint.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.caveats import caveats
from analysis.comparison import Comparison, compare
from analysis.figures import save_figures
from analysis.page import markdown, page
from analysis.question import ask
from analysis.runs import ReportError
from analysis.sweep import Sweep, read_sweep
from analysis.table import frame, latex, notes, tables
from analysis.wording import claims

PLAIN_WIDTH = 140  # columns, where the output is no terminal


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code."""
    options = parse(arguments)
    try:
        sweep = read_sweep(options.directories, options.by)
        question = ask(sweep.runs, options.metric, options.mode)
        comparison = compare(sweep.runs, question, options.target)
        folder = options.output or output_directory(options.directories)
        candidates = f"{len(comparison.rows)} candidates, {len(sweep.runs)} runs"
        title = f"{folder.resolve().name}: {candidates}"
        show(comparison, sweep, title)
        files = write(comparison, sweep, title, folder, options)
        print(*files, sep="\n")
        if options.wandb:
            from analysis.wandb_report import publish  # imports wandb: seconds

            print(publish(comparison, title, files))
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: cannot write {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compare finished runs: a table, report.csv and a self-contained report.html."
    )
    parser.add_argument(
        "directories", nargs="+", type=Path, help="a sweep, or several run directories"
    )
    parser.add_argument("--output", type=Path, help="where the files go (default: the sweep)")
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="KEY",
        help="a group or config key that tells candidates apart, such as optim or optimizer.lr; "
        "may be repeated (default: every choice that differs)",
    )
    parser.add_argument("--metric", help="compare on this metric (default: what the runs monitor)")
    parser.add_argument("--mode", choices=("max", "min"), help="which way --metric is better")
    parser.add_argument(
        "--target", type=float, help="count the cost of reaching this value of the metric"
    )
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="DIR",
        help="every figure as SVG, PDF and PNG, as wide as a paper's column and page",
    )
    parser.add_argument("--latex", type=Path, metavar="FILE", help="the table for booktabs")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the report as Markdown")
    parser.add_argument("--wandb", action="store_true", help="log the report to the runs' group")
    return parser.parse_args(arguments)


def output_directory(directories: list[Path]) -> Path:
    """The sweep itself; the working directory if there are several."""
    return directories[0] if len(directories) == 1 else Path("report")


def show(comparison: Comparison, sweep: Sweep, title: str) -> None:
    """The report as a terminal can show it."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN_WIDTH)
    console.print(escape(title), style="bold")
    for table in tables(comparison):
        grid = Table()
        for i, column in enumerate(table.columns):
            grid.add_column(escape(column), overflow="fold", no_wrap=i == 0)
        for cells in table.to_numpy():
            grid.add_row(*map(escape, cells))
        console.print(grid)
    console.print(escape(notes(comparison)), style="dim")
    for claim in claims(comparison):
        console.print(escape(claim))
    for caveat in [*sweep.unfinished, *caveats(comparison)]:
        console.print(f"[yellow]note[/yellow] {escape(caveat)}")


def write(
    comparison: Comparison, sweep: Sweep, title: str, folder: Path, options: argparse.Namespace
) -> list[Path]:
    """``report.csv``, ``report.html`` and what else is asked for; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "report.csv", folder / "report.html"]
    frame(comparison).to_csv(files[0], index=False)
    files[1].write_text(page(comparison, sweep, title), encoding="utf-8")
    if options.figures:
        save_figures(comparison, options.figures)
        files.append(options.figures)
    if options.latex:
        options.latex.write_text(latex(comparison, title), encoding="utf-8")
        files.append(options.latex)
    if options.markdown:
        options.markdown.write_text(markdown(comparison, sweep, title), encoding="utf-8")
        files.append(options.markdown)
    return files


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
