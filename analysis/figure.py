"""One figure, drawn for the page (SVG in the page's own colours) or for a paper."""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from analysis.looks import CSS_VARIABLES, INK, PAPER_STYLE, STYLE, Palette
from analysis.plot import Plot

PAPER_WIDTHS = {"column": 3.25, "page": 6.75}  # inches
PAGE_WIDTH = 4.2
FORMATS = ("svg", "pdf", "png")
METADATA = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # the same file every time


@dataclass(frozen=True)
class Figure:
    """What one figure shows.

    Attributes:
        names: of the legend, in order; empty if the plot names them itself.
        height: in inches; None: in proportion to the width.
    """

    title: str
    note: str
    draw: Callable[[Plot], None]
    names: tuple[str, ...]
    height: float | None = None


def inline_svg(figure: Figure, palette: Palette) -> Markup:
    """The figure for the page: colours are the page's own, so it is right in light and dark."""
    text = rendered(figure, palette, PAGE_WIDTH, "svg", STYLE).decode()
    text = re.sub(
        r"<!--.*?-->|<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S
    )
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


def save(figure: Figure, palette: Palette, folder: Path) -> None:
    """The figure for a paper: at the widths of a column and of a page, fonts embedded."""
    name = re.sub(r"\W+", "_", figure.title).strip("_")
    for width, inches in PAPER_WIDTHS.items():
        for kind in FORMATS:
            content = rendered(figure, palette, inches, kind, PAPER_STYLE)
            (folder / f"{name}_{width}.{kind}").write_bytes(content)


def rendered(figure: Figure, palette: Palette, inches: float, kind: str, style: Any) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure as Canvas
    from matplotlib.lines import Line2D

    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in a script that the font lacks
        height = figure.height or min(0.66 * inches, 3.0)
        canvas = Canvas(figsize=(inches, height), layout="constrained")
        figure.draw(Plot(canvas.subplots(), palette))
        if style is PAPER_STYLE and figure.names:  # the page has legends of its own
            handles = [
                Line2D([], [], color=look.colour, linestyle=look.line, label=name)
                for look, name in palette.legend(figure.names)
            ]
            columns = min(2 if inches < PAGE_WIDTH else 4, len(handles))
            canvas.legend(
                handles=handles, loc="outside lower center", ncols=columns, labelcolor=INK
            )
        buffer = BytesIO()
        canvas.savefig(buffer, format=kind, dpi=300, metadata=METADATA.get(kind))
    return buffer.getvalue()
