"""The report as one HTML file (no network, no script) and as Markdown, both from templates.

Names of runs, overrides and errors come from whoever made the runs; the templates escape each.
"""

import re
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.caveats import caveats
from analysis.citation import methods, sentence
from analysis.comparison import Comparison
from analysis.figure import inline_svg
from analysis.figures import figures_of, palette_of
from analysis.looks import NUM_LOOKS
from analysis.provenance import facts, run_table
from analysis.study import SPACE_COLUMNS
from analysis.sweep import Sweep
from analysis.table import notes, tables
from analysis.wording import claims

HERE = Path(__file__).parent


def page(comparison: Comparison, sweep: Sweep, title: str) -> str:
    """The whole report as HTML."""
    palette = palette_of(comparison)
    return render(
        "page.html",
        comparison,
        sweep,
        title,
        style=Markup((HERE / "page.css").read_text()),  # our own file, not a run's
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        palette=palette,
        num_looks=NUM_LOOKS,
        figures=figures_of(comparison),
        draw=partial(inline_svg, palette=palette),
        facts=sweep.facts | facts(comparison.runs),
        spaces=[row for study in sweep.studies for row in study.spaces()],
        space_columns=SPACE_COLUMNS,
        runs=run_table(comparison),
    )


def markdown(comparison: Comparison, sweep: Sweep, title: str) -> str:
    """The report but for its figures."""
    return render("report.md", comparison, sweep, title)


def render(
    template: str, comparison: Comparison, sweep: Sweep, title: str, **others: object
) -> str:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=template.endswith(".html"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = in_markdown
    return environment.get_template(template).render(
        title=title,
        claims=claims(comparison),
        caveats=[*sweep.unfinished, *caveats(comparison)],
        tables=tables(comparison),
        table_note=notes(comparison),
        sentence=sentence(comparison),
        methods=methods(comparison, sweep.studies),
        **others,
    )


def in_markdown(text: str) -> str:
    return re.sub(r"([\\`*_|<])", r"\\\1", text).replace("\n", " ")
