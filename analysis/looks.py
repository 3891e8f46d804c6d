"""How figures look: a candidate's colour is its name's, on every page and on paper."""

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

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
PAPER_STYLE: Any = STYLE | {
    "font.size": 8, "axes.labelsize": 8, "legend.fontsize": 7.5, "axes.linewidth": 0.6,
    "figure.facecolor": "white", "svg.fonttype": "path",
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """How one candidate is drawn; ``is_other``: one of the many that share a look."""

    css_class: str
    colour: str
    dashed: bool
    is_other: bool = False

    @property
    def line(self) -> Literal["-", "--"]:
        """matplotlib's name of the line style."""
        return "--" if self.dashed else "-"


OTHER = Look("series other", SOFT, dashed=False, is_other=True)


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
            return OTHER
        row, column = divmod(slot, len(COLOURS))
        dashed = " dashed" if row else ""
        return Look(f"series s{slot} c{column}{dashed}", COLOURS[column], dashed=bool(row))

    def legend(self, names: Iterable[str]) -> list[tuple[Look, str]]:
        """A key for each name that has a look of its own, and one for all others."""
        shown = list(names)
        own = [(self[name], name) for name in shown if name in self.slots]
        others = len(shown) - len(own)
        return own + ([(OTHER, f"{others} more")] if others else [])


def known(name: str) -> str | None:
    """The optimizer that a candidate's name begins with; of ``study/sgd`` the second part."""
    bare = name.rpartition("/")[2]
    found = [word for word in KNOWN if bare == word or re.match(rf"{word}[_,]", bare)]
    return max(found, key=len, default=None)
