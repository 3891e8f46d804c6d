"""Charts as small inline SVG: colours are the page's, so one file is right in light and dark.

A chart collects marks in data units, then :meth:`Chart.svg` fits its axes around them. Every text
is escaped by Markup.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from markupsafe import Markup

WIDTH, HEIGHT = 440, 290
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 42
NUM_COLOURS = 8
NUM_TOLD_APART = 2 * NUM_COLOURS  # solid, then dashed; the rest is grey

OPENING = '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">'
GRID = '<path class="grid" d="M{:.1f},4V{}"/>'
TICK = '<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>'
DOT = '<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="4.5"><title>{}</title></circle>'
EARLY = DOT.replace("dot", "early")
SEED = '<circle class="seed {}" cx="{:.1f}" cy="{:.1f}" r="2.5"/>'
CROSS = '<path class="cross {}" d="{}"><title>{}</title></path>'

Points = Sequence[tuple[float, float]]


@dataclass
class Axis:
    """One direction of a chart: a range of data, linear or logarithmic, on a range of pixels."""

    label: str
    log: bool = False
    percent: bool = False
    whole: bool = False  # of things that are counted
    low: float = math.inf
    high: float = -math.inf

    def include(self, value: float) -> None:
        if math.isfinite(value) and not (self.log and value <= 0):
            self.low, self.high = min(self.low, value), max(self.high, value)

    def settle(self, padding: float) -> None:
        """Fix the range once all data are known."""
        if self.low > self.high:
            self.low, self.high = (1.0, 10.0) if self.log else (0.0, 1.0)
        low, high = self.scaled(self.low), self.scaled(self.high)
        if low == high:
            low, high = low - (abs(low) * 0.05 or 0.5), high + (abs(high) * 0.05 or 0.5)
        margin = padding * (high - low)
        self.start, self.stop = low - margin, high + margin

    def scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def position(self, value: float) -> float:
        """Where a value is, 0 at the start of the axis and 1 at its end."""
        if self.log and value <= 0:
            return 0.0
        return (self.scaled(value) - self.start) / (self.stop - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Round values on the axis and their labels."""
        if self.log and self.stop - self.start >= 1:
            stride = max(1, round((self.stop - self.start) / 6))
            powers = range(math.ceil(self.start), math.floor(self.stop) + 1, stride)
            return [(10.0**power, tick_text(10.0**power)) for power in powers]
        low, high = (10**self.start, 10**self.stop) if self.log else (self.start, self.stop)
        step = max(round_step((high - low) / 7), float(self.whole))
        first = math.ceil(low / step - 1e-9)
        values = [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]
        if self.percent:
            digits = max(0, -math.floor(math.log10(step * 100) + 1e-9))
            return [(value, f"{100 * value:.{digits}f}%") for value in values]
        return [(value, tick_text(value, step)) for value in values]


def round_step(rough: float) -> float:
    """The round number (1, 2 or 5 times a power of ten) next above ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)


def tick_text(value: float, step: float | None = None) -> str:
    if step is not None and step >= 1e-4 and abs(value) < 1e5:
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        return f"{value:.{digits}f}"
    if step is None and 1e-3 <= value < 1e4:
        return f"{value:g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}" if value else "0"


@dataclass
class Chart:
    """Lines, bands and points over two axes; ``series`` numbers choose the colours."""

    title: str
    x: Axis
    y: Axis
    lines: list[tuple[int, Points, str]] = field(default_factory=list)
    bands: list[tuple[int, Points]] = field(default_factory=list)
    dots: list[tuple[int, float, float, str, str]] = field(default_factory=list)
    crosses: list[tuple[int, float, str]] = field(default_factory=list)
    crosses_on_top: bool = False

    def line(self, series: int, points: Points, kind: str = "line") -> None:
        self.lines.append((series, points, kind))
        self.cover(points)

    def band(
        self, series: int, points: Points, low: Sequence[float], high: Sequence[float]
    ) -> None:
        """A filled area between ``low`` and ``high`` at the x of ``points``."""
        there = [(x, value) for (x, _), value in zip(points, low, strict=True)]
        back = [(x, value) for (x, _), value in zip(points, high, strict=True)]
        self.bands.append((series, [*there, *reversed(back)]))
        self.cover([*there, *back])

    def dot(self, series: int, x: float, y: float, tip: str, shape: str = DOT) -> None:
        self.dots.append((series, x, y, tip, shape))
        self.cover([(x, y)])

    def cross(self, series: int, x: float, tip: str) -> None:
        """A failure: at the bad edge of the chart, since it has no value."""
        self.crosses.append((series, x, tip))
        self.x.include(x)

    def cover(self, points: Points) -> None:
        for x, y in points:
            self.x.include(x)
            self.y.include(y)

    @property
    def is_empty(self) -> bool:
        return not self.lines and not self.dots

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Pixels; values beyond an axis stay at its edge."""
        across = min(max(self.x.position(x), 0.0), 1.0)
        up = min(max(self.y.position(y), 0.0), 1.0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (
            HEIGHT - TOP - BOTTOM
        )

    def path(self, points: Points) -> str:
        placed = (self.place(x, y) for x, y in points)
        return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in placed)

    def svg(self) -> Markup:
        self.x.settle(0.04 if self.dots or self.crosses else 0.0)
        self.y.settle(0.12 if self.crosses else 0.06)  # crosses have the edge to themselves
        parts = [
            Markup(OPENING).format(WIDTH, HEIGHT, self.title),
            *self.axes(),
        ]
        for series, points in self.bands:
            parts.append(mark('<path class="band {}" d="{}Z"/>', series, self.path(points)))
        # the first series, the best candidates, on top of the others
        for series, points, kind in sorted(self.lines, key=itemgetter(0), reverse=True):
            parts.append(mark(f'<path class="{kind} {{}}" d="{{}}"/>', series, self.path(points)))
        for series, x, y, tip, shape in sorted(self.dots, key=itemgetter(0), reverse=True):
            placed = self.place(x, y)
            parts.append(mark(shape, series, *placed, tip))
        for series, x, tip in self.crosses:
            px, _ = self.place(x, self.y.low)
            py = TOP + 7 if self.crosses_on_top else HEIGHT - BOTTOM - 7
            d = f"M{px - 4:.1f},{py - 4}l8,8m0,-8l-8,8"
            parts.append(mark(CROSS, series, d, tip))
        return Markup("").join([*parts, Markup("</svg>")])

    def axes(self) -> list[Markup]:
        """Grid lines, tick labels and names."""
        right, base = WIDTH - RIGHT, HEIGHT - BOTTOM
        parts = []
        for value, text in self.x.ticks():
            px, _ = self.place(value, self.y.low)
            parts.append(Markup(GRID).format(px, base))
            parts.append(Markup(TICK).format(px, base + 16, text))
        for value, text in self.y.ticks():
            _, py = self.place(self.x.low, value)
            parts.append(Markup('<path class="grid" d="M{},{:.1f}H{}"/>').format(LEFT, py, right))
            tick = '<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
            parts.append(Markup(tick).format(LEFT - 6, py + 4, text))
        name = '<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>'
        parts.append(Markup(name).format((LEFT + right) / 2, HEIGHT - 6, self.x.label))
        parts.append(
            Markup('<path class="frame" d="M{},{}V{}H{}"/>').format(LEFT, TOP, base, right)
        )
        return parts


def css_class(series: int) -> str:
    """How series are told apart: eight colours, then the same ones dashed; all others are grey."""
    if series >= NUM_TOLD_APART:
        return "series other"
    dashed = " dashed" if (series // NUM_COLOURS) % 2 else ""
    return f"series s{series} c{series % NUM_COLOURS}{dashed}"


def mark(template: str, series: int, *values: object) -> Markup:
    return Markup(template).format(css_class(series), *values)
