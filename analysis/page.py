"""What a report says, and how: as one HTML file (no network, no script) and as Markdown.

Names of runs, overrides and errors come from whoever made the runs; the templates escape each.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from analysis.caveats import caveats
from analysis.claims import claims, claims_against, notes_and_methods, template
from analysis.comparison import Comparison
from analysis.figures import figures_of, palette_of
from analysis.plot import NUM_LOOKS, Figure, Palette, inline_svg, save
from analysis.provenance import facts, run_table
from analysis.sweep import Sweep
from analysis.tables import frame, tables


class Document(ABC):
    """What a report says, whatever shows it."""

    page_template: ClassVar[str]
    title: str
    claims: list[str]
    caveats: list[str]
    tables: list[pd.DataFrame]  # in words
    frame: pd.DataFrame  # in numbers
    notes: str  # how to read the tables
    methods: str
    palette: Palette
    parts: "Sequence[Report]" = ()  # reports that this one stands on

    @abstractmethod
    def figures(self) -> dict[str, list[Figure]]:
        """The figures by the part of the page they stand in."""

    @abstractmethod
    def details(self) -> dict[str, Any]:
        """What else the template of the page shows."""

    def page(self) -> str:
        """All of it as HTML."""
        return template(self.page_template).render(
            report=self,
            made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            palette=self.palette,
            num_looks=NUM_LOOKS,
            figures=self.figures(),
            draw=partial(inline_svg, palette=self.palette),
            **self.details(),
        )

    def markdown(self) -> str:
        """All but the figures."""
        return template("report.md").render(report=self)

    def save_figures(self, folder: Path) -> None:
        """Every figure as SVG, PDF and PNG at the widths of a paper's column and page."""
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

    def figures(self) -> dict[str, list[Figure]]:
        return figures_of(self.comparison)

    def details(self) -> dict[str, Any]:
        comparison, studies = self.comparison, self.sweep.studies
        protocols = {f"{study.prefix}protocol": list(study.facts()) for study in studies}
        return {
            "facts": {"command": self.sweep.commands, **protocols, **facts(comparison.used)},
            "spaces": [row for study in studies for row in study.spaces()],
            "runs": run_table(comparison),
        }
