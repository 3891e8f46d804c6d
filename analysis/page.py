"""The report as one HTML file: no network, no script, light and dark, wide and narrow.

Names of runs, overrides and errors come from whoever made the runs; the template escapes each.
"""

from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.caveats import caveats
from analysis.comparison import Comparison
from analysis.figures import Figures
from analysis.palette import Palette
from analysis.provenance import provenance
from analysis.study import SPACE_COLUMNS
from analysis.svg import NUM_TOLD_APART
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
    palette = Palette(row.name for row in comparison.rows)
    trials = trials_by_family(comparison.members, comparison.question)
    return environment.get_template("page.html").render(
        title=title,
        style=Markup((HERE / "page.css").read_text()),  # our own file, not a run's
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        claims=claims(comparison),
        caveats=[*sweep.unfinished, *caveats(comparison)],
        tables=tables(comparison),
        palette=palette,
        num_series=NUM_TOLD_APART,
        table_note=notes(comparison),
        figures=Figures(comparison, palette),
        tuning=list(TuningFigures(comparison, trials, palette).all()),
        provenance=provenance(comparison, sweep.facts),
        spaces=sweep.spaces,
        space_columns=SPACE_COLUMNS,
    )
