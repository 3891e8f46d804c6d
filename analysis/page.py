"""What a report says, and how: as one HTML file (no network, no script) and as Markdown.

Names of runs, overrides and errors come from whoever made the runs; the templates escape each.
"""

from datetime import UTC, datetime
from functools import partial

from analysis.caveats import caveats
from analysis.claims import claims, notes_and_methods, template
from analysis.comparison import Comparison
from analysis.figures import figures_of, palette_of
from analysis.plot import NUM_LOOKS, inline_svg
from analysis.provenance import facts, run_table
from analysis.sweep import Sweep
from analysis.tables import tables


class Report:
    """What a report says, whatever shows it."""

    def __init__(self, comparison: Comparison, sweep: Sweep, title: str) -> None:
        self.comparison, self.sweep, self.title = comparison, sweep, title
        doubts = [doubt for study in sweep.studies for doubt in study.doubts()]
        self.claims = [*claims(comparison), *doubts]
        unfinished = filter(None, (study.unfinished() for study in sweep.studies))
        self.caveats = [*unfinished, *caveats(comparison)]
        self.tables = tables(comparison)
        self.notes, self.methods = notes_and_methods(comparison, sweep.studies)

    def page(self) -> str:
        """All of it as HTML."""
        comparison, studies = self.comparison, self.sweep.studies
        palette = palette_of(comparison)
        protocols = {f"{study.prefix}protocol": study.facts() for study in studies}
        return template("page.html").render(
            report=self,
            made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            palette=palette,
            num_looks=NUM_LOOKS,
            figures=figures_of(comparison),
            draw=partial(inline_svg, palette=palette),
            facts={"command": self.sweep.commands, **protocols, **facts(comparison.used)},
            spaces=[row for study in studies for row in study.spaces()],
            runs=run_table(comparison),
        )

    def markdown(self) -> str:
        """All but the figures."""
        return template("report.md").render(report=self)
