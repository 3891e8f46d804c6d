"""Plots with matplotlib, for the page (SVG with CSS colours) and for a paper.

A candidate's colour depends on its name, so it is the same on every page and in every figure.
"""

import math
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from analysis.words import is_share, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, SOFT, LINE, PAPER = "#1c1f24", "#5d6570", "#e3e6ea", "#ffffff"
COLOURS = (
    "#0b6fb8", "#d1500b", "#0d8f69", "#b3478f", "#b98500", "#6a4fc8", "#2aa4c9", "#7d6a55",
)  # fmt: skip
# page.css has a light and a dark value for each of these
CSS_VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line", PAPER: "paper"} | {
    colour: f"c{i}" for i, colour in enumerate(COLOURS)
}
NUM_LOOKS = 2 * len(COLOURS)  # solid, then dashed; further names are grey
# names whose look does not depend on the other candidates
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
PAPER_STYLE: Any = STYLE | {
    "font.size": 8, "axes.labelsize": 8, "legend.fontsize": 7.5, "axes.linewidth": 0.6,
    "figure.facecolor": "white", "svg.fonttype": "path",
}  # fmt: skip
PAGE_WIDTH = 4.2  # inches
PAPER_WIDTHS = {"column": 3.25, "page": 6.75}
FORMATS = ("svg", "pdf", "png")
METADATA = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # for reproducible files

LOG_FROM = 5  # values that span more than this factor are shown on a logarithmic scale
LEAST_ERROR = 5e-5  # lower bound of an error on a log scale, for an accuracy of 100 %
SHARES = (0.1, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)


@dataclass(frozen=True)
class Look:
    """How one candidate is drawn."""

    css_class: str
    colour: str
    line: Literal["-", "--"] = "-"  # matplotlib's names of line styles


OTHER = Look("series other", SOFT)  # shared by all names beyond NUM_LOOKS


class Palette:
    """The looks of all names of a page.

    Args:
        names: best first; from the 17th on they share one look.
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
        if (slot := self.slots.get(name)) is None:
            return OTHER
        column = slot % len(COLOURS)
        if slot == column:
            return Look(f"series s{slot} c{column}", COLOURS[column])
        return Look(f"series s{slot} c{column} dashed", COLOURS[column], "--")


def known(name: str) -> str | None:
    """The optimizer that a candidate's name starts with, after any ``study/`` prefix."""
    bare = name.rpartition("/")[2]
    found = [word for word in KNOWN if bare == word or re.match(rf"{word}[_,]", bare)]
    return max(found, key=len, default=None)


class Plot:
    """Matplotlib axes on which candidates are drawn in their looks."""

    def __init__(self, axes: "Axes", palette: Palette) -> None:
        self.axes, self.palette = axes, palette

    def x_axis(self, label: str, values: Sequence[float] = ()) -> None:
        """Label the axis; logarithmic if the range of ``values`` is large."""
        self.axes.set_xlabel(label)
        if values and spans(values):
            self.axes.set_xscale("log")
            log_ticks(self.axes.xaxis, values)

    def y_axis(
        self,
        metric: str,
        values: Sequence[float],
        inside: Sequence[float] = (),
        larger_is_better: bool = True,
    ) -> None:
        """Label the axis with the metric; losses and errors with a large range are logarithmic.

        Accuracies have a log scale of their error: 99 and 99.9 % are as far apart as 90 and 99 %.

        Args:
            inside: the values that the axis must resolve; worse ones become arrows at its edge.
                Empty: all.
        """
        from matplotlib.ticker import FixedLocator, NullLocator

        inside = inside or values
        if is_share(metric) and spans([max(1 - value, LEAST_ERROR) for value in inside]):
            self.axes.set_yscale("function", functions=(minus_log_error, accuracy_of))
            self.axes.yaxis.set_major_locator(FixedLocator(SHARES))
            self.axes.yaxis.set_minor_locator(NullLocator())
        elif not is_share(metric) and spans(inside):
            self.axes.set_yscale("log")
            log_ticks(self.axes.yaxis, inside)
        name_axis(self.axes.yaxis, metric)
        low, high = min(inside), max(inside)
        has_worse = min(values) < low if larger_is_better else max(values) > high
        if has_worse and low < high:
            low, high = (low, max(values)) if larger_is_better else (min(values), high)
            scale = self.axes.yaxis.get_transform()
            bottom, top = scale.transform([low, high])
            margin = 0.06 * (top - bottom)
            self.axes.set_ylim(*scale.inverted().transform([bottom - margin, top + margin]))

    def is_outside(self, value: float) -> bool:
        low, high = self.axes.get_ylim()
        return not self.axes.get_autoscaley_on() and not low <= value <= high

    def mark(self, name: str, x: Any, y: Any, kind: str, tip: str = "", **style: Any) -> None:
        """Draw a candidate's markers or line; hovering shows ``tip``, or its name."""
        look, order = self.palette[name], self.palette.order
        depth = 3 - order.get(name, len(order)) / (len(order) + 1)  # the best on top
        style = {"color": look.colour, "zorder": depth, **style}
        (drawn,) = self.axes.plot(x, y, kind, **style)
        drawn.set_gid(f"{look.css_class}|{tip or name}")

    def line(self, name: str, x: Sequence[float], y: Sequence[float]) -> None:
        self.mark(name, x, y, self.palette[name].line, linewidth=1.6)

    def band(self, name: str, x: Sequence[float], low: Any, high: Any) -> None:
        look = self.palette[name]
        area = self.axes.fill_between(x, low, high, color=look.colour, alpha=0.16, linewidth=0)
        area.set_gid(f"{look.css_class}|{name}")

    def dot(self, name: str, x: float, y: float, tip: str, hollow: bool = False) -> None:
        """Draw a marker with a hover text; an arrow at the edge if it is off scale."""
        if self.is_outside(y):
            is_top = y > self.axes.get_ylim()[1]
            self.at_edge(name, x, "^" if is_top else "v", tip, is_top)
            return
        colour = self.palette[name].colour
        fill, rim = (PAPER, colour) if hollow else (colour, PAPER)
        self.mark(name, x, y, "o", tip, markersize=5.5, markerfacecolor=fill, markeredgecolor=rim)

    def at_edge(self, name: str, x: float, kind: str, tip: str, is_top: bool) -> None:
        """Draw a marker at the upper or lower edge, for an off-scale value or a failure."""
        y, place = 0.97 if is_top else 0.03, self.axes.get_xaxis_transform()
        self.mark(name, x, y, kind, tip, transform=place, markersize=5.5, clip_on=False)


def name_axis(axis: Any, metric: str) -> None:
    axis.set_label_text(words(metric))
    if is_share(metric):
        axis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")


def hopeful(values: Sequence[float], larger_is_better: bool) -> list[float]:
    """The values that a figure must resolve; much worse ones would flatten the differences.

    They are at most four times as far from the best as the median is.
    """
    sign = 1 if larger_is_better else -1
    best = max(sign * value for value in values)
    edge = best - 4 * (best - sign * float(np.median(values)))
    return [value for value in values if sign * value >= edge]


def spans(values: Sequence[float]) -> bool:
    """Whether values are positive and have a range that needs a logarithmic scale."""
    return min(values) > 0 and max(values) >= LOG_FROM * min(values)


def minus_log_error(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return -np.log10(np.maximum(1 - np.asarray(share, dtype=float), LEAST_ERROR))


def accuracy_of(position: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 - 10 ** -np.asarray(position, dtype=float)


def log_ticks(axis: Any, values: Sequence[float]) -> None:
    """Ticks at powers of ten, or at 1, 2 and 5 for short ranges, as plain numbers."""
    from matplotlib.ticker import LogLocator, NullLocator

    subs = (1.0, 2.0, 5.0) if math.log10(max(values) / min(values)) < 2 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


@dataclass(frozen=True)
class Figure:
    """One figure: its texts, and the function that draws it.

    Attributes:
        names: legend entries in order; empty if the plot has labels of its own.
        height: in inches; None: proportional to the width.
        is_wide: whether it needs the width of a page.
    """

    title: str
    note: str
    draw: Callable[[Plot], None]
    names: tuple[str, ...]
    height: float | None = None
    is_wide: bool = False


def inline_svg(figure: Figure, palette: Palette) -> Markup:
    """The figure as inline SVG with CSS variables for colours, for light and dark pages."""
    text = rendered(figure, palette, (1 + figure.is_wide) * PAGE_WIDTH, "svg", STYLE).decode()
    text = re.sub(
        r"<!--.*?-->|<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S
    )
    # Plot put class and hover text into the id, escaped by matplotlib
    text = re.sub(r'<g id="(series[^"|]*)\|([^"]*)">', r'<g class="\1"><title>\2</title>', text)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*" height="[^"]*"', r"\1", text)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(figure.title)}" ', 1)
    for colour, name in CSS_VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    return Markup(text)


def save(figure: Figure, palette: Palette, folder: Path) -> None:
    """Save the figure for a paper, at column and page width, with embedded fonts."""
    name = re.sub(r"\W+", "_", figure.title).strip("_")
    for width, inches in PAPER_WIDTHS.items():
        if figure.is_wide and inches < PAGE_WIDTH:
            continue
        for kind in FORMATS:
            content = rendered(figure, palette, inches, kind, PAPER_STYLE)
            (folder / f"{name}_{width}.{kind}").write_bytes(content)


def rendered(figure: Figure, palette: Palette, inches: float, kind: str, style: Any) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure as Canvas
    from matplotlib.lines import Line2D

    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the font may lack the script of a name
        height = figure.height or min(0.66 * inches, 3.0)
        canvas = Canvas(figsize=(inches, height), layout="constrained")
        figure.draw(Plot(canvas.subplots(), palette))
        if style is PAPER_STYLE and figure.names:  # the page has its legends in HTML
            handles = [
                Line2D([], [], color=palette[name].colour, linestyle=palette[name].line, label=name)
                for name in figure.names
            ]
            columns = min(2 if inches < PAGE_WIDTH else 4, len(handles))
            canvas.legend(
                handles=handles, loc="outside lower center", ncols=columns, labelcolor=INK
            )
        buffer = BytesIO()
        canvas.savefig(buffer, format=kind, dpi=300, metadata=METADATA.get(kind))
    return buffer.getvalue()
