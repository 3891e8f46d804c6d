"""How figures look: a candidate's colour is its name's, on every page and on paper."""

import re
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from analysis.plot import Figure

INK, SOFT, LINE, PAPER = "#1c1f24", "#5d6570", "#e3e6ea", "#ffffff"
COLOURS = (
    "#0b6fb8", "#d1500b", "#0d8f69", "#b3478f", "#b98500", "#6a4fc8", "#2aa4c9", "#7d6a55",
)  # fmt: skip
# page.css has a light and a dark value for each of these
CSS_VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line", PAPER: "paper"} | {
    colour: f"c{i}" for i, colour in enumerate(COLOURS)
}
NUM_LOOKS = 2 * len(COLOURS)  # solid, then dashed; all others are grey
# names that keep their look whoever else is compared
KNOWN = (
    "sgd", "adamw", "adam", "radam", "lamb", "adafactor", "rmsprop", "muon",
    "lion", "nadam", "adan", "schedulefree_adamw", "schedulefree_sgd", "soap", "prodigy", "sam",
)  # fmt: skip

STYLE: Any = {
    "font.size": 9, "axes.labelsize": 9, "text.color": INK, "axes.labelcolor": SOFT,
    "xtick.color": SOFT, "ytick.color": SOFT, "axes.edgecolor": SOFT, "axes.facecolor": "none",
    "figure.facecolor": "none", "axes.grid": True, "grid.color": LINE, "grid.linewidth": 0.8,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "lines.solid_joinstyle": "round", "legend.frameon": False, "text.parse_math": False,
    "svg.fonttype": "none", "svg.hashsalt": "report", "pdf.fonttype": 42,
}  # fmt: skip
PAPER_STYLE: Any = {
    "font.size": 8, "axes.labelsize": 8, "legend.fontsize": 7.5, "axes.linewidth": 0.6,
    "figure.facecolor": "white", "svg.fonttype": "path",
}  # fmt: skip
PAPER_WIDTHS = {"column": 3.25, "page": 6.75}  # inches
PAGE_WIDTH = 4.2
FORMATS = ("svg", "pdf", "png")


@dataclass(frozen=True)
class Look:
    """How one candidate is drawn."""

    css_class: str
    colour: str = SOFT
    dashed: bool = False
    is_other: bool = False  # one of the many that share a look


class Palette:
    """The looks of all names of a page.

    Args:
        names: in the order of their standing; from the 17th on they share one look.
    """

    def __init__(self, names: Iterable[str]) -> None:
        ordered = list(dict.fromkeys(names))
        self.order = {name: i for i, name in enumerate(ordered)}
        self.slots: dict[str, int] = {}
        for name in sorted(ordered[:NUM_LOOKS], key=lambda name: (known(name) is None, name)):
            word = known(name)
            slot = KNOWN.index(word) if word else zlib.crc32(name.encode()) % NUM_LOOKS
            while slot in self.slots.values():
                slot = (slot + 1) % NUM_LOOKS
            self.slots[name] = slot

    def __getitem__(self, name: str) -> Look:
        slot = self.slots.get(name)
        if slot is None:
            return Look("series other", is_other=True)
        row, column = divmod(slot, len(COLOURS))
        dashed = " dashed" if row else ""
        return Look(f"series s{slot} c{column}{dashed}", COLOURS[column], dashed=bool(row))

    def legend(self, names: Iterable[str]) -> list[tuple[Look, str]]:
        """A key for each name that has a look of its own, and one for all others."""
        shown = list(names)
        own = [(self[name], name) for name in shown if name in self.slots]
        others = len(shown) - len(own)
        return own + ([(Look("series other", is_other=True), f"{others} more")] if others else [])


def known(name: str) -> str | None:
    """The optimizer that a candidate's name begins with; of ``study/sgd`` the second part."""
    bare = name.rpartition("/")[2]
    found = [word for word in KNOWN if bare == word or re.match(rf"{word}[_,]", bare)]
    return max(found, key=len, default=None)


def inline_svg(figure: "Figure", palette: Palette) -> Markup:
    """The figure for the page: colours are the page's own, so it is right in light and dark."""
    drawn = rendered(figure, palette, PAGE_WIDTH, "svg", STYLE).decode()
    text = re.sub(r"<!--.*?-->", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Plot put class and hover text into the id, escaped by matplotlib
    text = re.sub(
        r'<g id="(series[^"|]*)\|([^"]*)">',
        lambda found: f'<g class="{found[1]}">' + f"<title>{found[2]}</title>" * bool(found[2]),
        text,
    )
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*" height="[^"]*"', r"\1", text)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(figure.title)}" ', 1)
    for colour, name in CSS_VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    return Markup(text)


def save(figure: "Figure", palette: Palette, folder: Path) -> None:
    """The figure for a paper: at the widths of a column and of a page, fonts embedded."""
    for width_name, inches in PAPER_WIDTHS.items():
        for kind in FORMATS:
            content = rendered(figure, palette, inches, kind, STYLE | PAPER_STYLE, legend=True)
            (folder / f"{figure.name}_{width_name}.{kind}").write_bytes(content)


def rendered(
    figure: "Figure",
    palette: Palette,
    inches: float,
    kind: str,
    style: Any,
    legend: bool = False,
) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    from analysis.plot import Plot

    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in a script that the font lacks
        height = figure.height or min(0.66 * inches, 3.0)
        canvas = Canvas(figsize=(inches, height), layout="constrained")
        plot = Plot(canvas.subplots(), palette)
        figure.draw(plot)
        if legend and figure.names:
            plot.legend(canvas, figure.names, num_columns=2 if inches < 4 else 4)
        buffer = BytesIO()
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        canvas.savefig(buffer, format=kind, dpi=300, metadata=metadata)
    return buffer.getvalue()
