"""The report as one HTML file: no network, no script, light and dark, wide and narrow.

Names of runs, overrides and errors come from whoever made the runs; the template escapes each.
"""

from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.caveats import caveats
from analysis.citation import methods, sentence
from analysis.comparison import Comparison
from analysis.figures import Figures
from analysis.looks import NUM_LOOKS, Palette, inline_svg, save
from analysis.plot import Figure
from analysis.provenance import provenance
from analysis.study import SPACE_COLUMNS
from analysis.sweep import Sweep
from analysis.table import notes, tables
from analysis.tuning import trials_by_family
from analysis.tuning_figures import TuningFigures
from analysis.wording import claims

HERE = Path(__file__).parent


def page(comparison: Comparison, sweep: Sweep, title: str) -> str:
    """The whole report as HTML."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    palette = palette_of(comparison)
    drawn = {
        part: [(figure, inline_svg(figure, palette)) for figure in figures]
        for part, figures in figures_of(comparison, palette).items()
    }
    return environment.get_template("page.html").render(
        title=title,
        style=Markup((HERE / "page.css").read_text()),  # our own file, not a run's
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        claims=claims(comparison),
        caveats=[*sweep.unfinished, *caveats(comparison)],
        tables=tables(comparison),
        palette=palette,
        num_looks=NUM_LOOKS,
        table_note=notes(comparison),
        figures=drawn,
        sentence=sentence(comparison),
        methods=methods(comparison, sweep.studies),
        provenance=provenance(comparison, sweep.facts),
        spaces=sweep.spaces,
        space_columns=SPACE_COLUMNS,
    )


def figures_of(comparison: Comparison, palette: Palette) -> dict[str, list[Figure]]:
    """The figures by the part of the page they stand in."""
    trials = trials_by_family(comparison.members, comparison.question)
    figures = Figures(comparison, palette)
    return {
        "result": [figures.forest()],
        "cost": list(figures.costs()),
        "tuning": list(TuningFigures(comparison, trials, palette).all()),
        "training": list(figures.curves()),
    }


def palette_of(comparison: Comparison) -> Palette:
    families = [member.family for member in comparison.members]
    return Palette([*(row.name for row in comparison.rows), *families])


def save_figures(comparison: Comparison, folder: Path) -> None:
    """Every figure as SVG, PDF and PNG at the widths of a paper's column and page."""
    palette = palette_of(comparison)
    folder.mkdir(parents=True, exist_ok=True)
    for figures in figures_of(comparison, palette).values():
        for figure in figures:
            save(figure, palette, folder)
