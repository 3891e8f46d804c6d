"""What all figures of a page share: how they look, and a candidate's colour."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from analysis.svg import NUM_TOLD_APART, css_class


@dataclass(frozen=True)
class Figure:
    title: str
    note: str
    svg: Markup
    legend: tuple[tuple[str, str], ...]  # css class, name


class Palette:
    """The series of a page by name, in the order of their standing."""

    def __init__(self, names: Iterable[str]) -> None:
        self.series = {name: i for i, name in enumerate(names)}

    def __getitem__(self, name: str) -> int:
        return self.series[name]

    def css_class(self, name: str) -> str:
        return css_class(self[name])

    def legend(self, names: Iterable[str]) -> tuple[tuple[str, str], ...]:
        """A key for each name that has a look of its own, and one for all others."""
        shown = list(names)
        own = [name for name in shown if self[name] < NUM_TOLD_APART]
        others = len(shown) - len(own)
        rest = [(css_class(NUM_TOLD_APART), f"{others} more")] if others else []
        return (*((self.css_class(name), name) for name in own), *rest)


def spans(values: Sequence[float], factor: float) -> bool:
    """Whether positive values are so far apart that they need a logarithmic scale."""
    return bool(values) and min(values) > 0 and max(values) >= factor * min(values)
