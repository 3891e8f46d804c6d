"""Reports as one HTML file (no network, no script) and as Markdown.

Run names, overrides and error messages are untrusted text: the templates escape them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from analysis.caveats import caveats
from analysis.claims import TEMPLATES, claims, claims_against, notes_and_methods
from analysis.comparison import Comparison
from analysis.figures import figures_of, palette_of
from analysis.plot import NUM_LOOKS, Figure, Palette, inline_svg, save
from analysis.provenance import facts, run_table
from analysis.sweep import Sweep
from analysis.tables import frame, tables


class Document(ABC):
    """The content of a report, independent of the output format."""

    page_template: ClassVar[str]
    title: str
    claims: list[str]
    caveats: list[str]
    tables: list[pd.DataFrame]  # formatted for reading
    frame: pd.DataFrame  # plain numbers, for report.csv
    notes: str  # how to read the tables
    methods: str
    palette: Palette
    parts: "Sequence[Report]" = ()  # the reports of single workloads

    details: dict[str, Any]  # further variables of the page template

    @abstractmethod
    def figures(self) -> dict[str, list[Figure]]:
        """Figures by section of the page."""

    def page(self) -> str:
        """The whole report as HTML."""
        return TEMPLATES.get_template(self.page_template).render(
            report=self,
            made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            palette=self.palette,
            num_looks=NUM_LOOKS,
            figures=self.figures(),
            draw=partial(inline_svg, palette=self.palette),
            **self.details,
        )

    def markdown(self) -> str:
        """The report as Markdown, without figures."""
        return TEMPLATES.get_template("report.md").render(report=self)

    def save_figures(self, folder: Path) -> None:
        """Save every figure as SVG, PDF and PNG, at the column and page width of a paper."""
        folder.mkdir(parents=True, exist_ok=True)
        for figures in self.figures().values():
            for figure in figures:
                save(figure, self.palette, folder)


class Report(Document):
    """The report of one comparison."""

    page_template = "page.html"

    def __init__(
        self, comparison: Comparison, sweep: Sweep, title: str, baseline: str | None = None
    ) -> None:
        self.comparison, self.sweep, self.title = comparison, sweep, title
        self.outcome = list(claims(comparison))
        if baseline is not None:
            self.outcome.append(claims_against(comparison, baseline))
        self.doubts = [doubt for study in sweep.studies for doubt in study.doubts()]
        self.claims = [*self.outcome, *self.doubts]
        unfinished = filter(None, (study.unfinished() for study in sweep.studies))
        self.caveats = [*unfinished, *caveats(comparison)]
        self.tables, self.frame = tables(comparison), frame(comparison)
        self.notes, self.methods = notes_and_methods(comparison, sweep.studies)
        self.palette = palette_of(comparison)
        protocols = {f"{study.prefix}protocol": list(study.facts()) for study in sweep.studies}
        self.details = {
            "facts": {"command": sweep.commands, **protocols, **facts(comparison.used)},
            "spaces": [row for study in sweep.studies for row in study.spaces()],
            "runs": run_table(comparison),
        }

    def figures(self) -> dict[str, list[Figure]]:
        return figures_of(self.comparison)
