"""One plot on matplotlib's axes: scales that suit the data, marks with what hovering shows."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.looks import PAPER, SOFT, Palette
from analysis.question import is_share
from analysis.wording import MINUS, metric_value, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOG_FROM = 5  # values that span more than this factor are shown on a logarithmic scale
LEAST_ERROR = 0.005  # percent; an accuracy of 100 % has no logarithm of its error
DECADES_OF_RATE = 1e-4  # of the highest: the end of a schedule may be zero
MAX_LABELS = 12  # values written beside marks at the edge; more would cover each other
LABEL_WIDTH, LABEL_HEIGHT = 12, 30


class Plot:
    """Axes and the looks of candidates; y is a metric, shares in percent."""

    def __init__(self, axes: "Axes", palette: Palette) -> None:
        self.axes, self.palette = axes, palette
        self.metric = ""
        self.is_focused = False  # some values lie outside
        self.labelled: list[float] = []  # where along x values stand at the edge, in pixels

    def x_axis(self, label: str, values: Sequence[float] = (), log: bool = False) -> None:
        """Name the axis; with ``values``, fix its limits."""
        self.axes.set_xlabel(label)
        if log:
            values = [value for value in values if value > 0]
            self.axes.set_xscale("log")
            log_ticks(self.axes.xaxis, values)
        if values:  # now, since values written at the edge must know their places
            self.axes.dataLim.update_from_data_x(values)
            self.axes.autoscale_view(scaley=False)
            self.axes.set_xlim(*self.axes.get_xlim())

    def y_axis(
        self,
        metric: str,
        values: Sequence[float],
        inside: Sequence[float] = (),
        larger_is_better: bool = True,
    ) -> None:
        """Name the axis after the metric; errors and losses that span enough are logarithmic.

        Of an accuracy the error is, so that 99 and 99.9 % are as far apart as 90 and 99 %.

        Args:
            inside: the values to be told apart; arrows point at those that are worse than all of
                them. Empty: all.
        """
        self.metric = metric
        self.axes.set_ylabel(axis_label(metric))
        resolved = inside or values
        errors = [max(100 - 100 * value, LEAST_ERROR) for value in resolved]
        if is_share(metric) and spans(errors):
            self.axes.set_yscale("function", functions=(minus_log_error, accuracy_of))
            error_ticks(self.axes.yaxis, min(errors), max(errors))
        elif not is_share(metric) and spans(resolved):
            self.axes.set_yscale("log")
            log_ticks(self.axes.yaxis, resolved)
        low, high = min(resolved), max(resolved)
        has_worse = min(values) < low if larger_is_better else max(values) > high
        if has_worse and low < high:
            low, high = (low, max(values)) if larger_is_better else (min(values), high)
            self.is_focused = True
            scale = self.axes.yaxis.get_transform()
            bottom, top = scale.transform(self.percent([low, high]))
            margin = 0.06 * (top - bottom)
            self.axes.set_ylim(*scale.inverted().transform([bottom - margin, top + margin]))

    def rate_axis(self, metric: str, values: Sequence[float]) -> None:
        """A learning rate: logarithmic, and no more than four decades of a schedule's end."""
        self.metric = metric
        self.axes.set_ylabel(axis_label(metric))
        positive = [value for value in values if value > 0]
        if positive:
            self.axes.set_yscale("log")
            log_ticks(self.axes.yaxis, positive)
            if min(positive) < DECADES_OF_RATE * max(positive):
                self.axes.set_ylim(DECADES_OF_RATE * max(positive), 2 * max(positive))

    def is_outside(self, value: float) -> bool:
        low, high = self.axes.get_ylim()
        return self.is_focused and not low <= self.percent(value) <= high

    def percent(self, value: Any) -> Any:
        return (100 if is_share(self.metric) else 1) * np.asarray(value)

    def mark(self, name: str, x: Any, y: Any, kind: str, tip: str = "", **style: Any) -> None:
        """A candidate's marks or line at ``x`` and ``y``, with what hovering shows."""
        look, order = self.palette[name], self.palette.order
        depth = 3 - order.get(name, len(order)) / (len(order) + 1)  # the best lie on top
        style = {"color": look.colour, "zorder": depth, **style}
        (drawn,) = self.axes.plot(x, y, kind, **style)
        drawn.set_gid(f"{look.css_class}|{tip}")

    def line(
        self,
        name: str,
        x: Sequence[float],
        y: Sequence[float],
        width: float = 1.6,
        alpha: float = 1,
    ) -> None:
        look = self.palette[name]
        style = {"linewidth": 0.8, "alpha": 0.5} if look.is_other else {"linewidth": width}
        self.mark(name, x, self.percent(y), look.line, name, **{"alpha": alpha, **style})

    def band(self, name: str, x: Sequence[float], low: Any, high: Any) -> None:
        look = self.palette[name]
        style: dict[str, Any] = {"color": look.colour, "alpha": 0.16, "linewidth": 0}
        area = self.axes.fill_between(x, self.percent(low), self.percent(high), **style)
        area.set_gid(f"{look.css_class}|")

    def dot(self, name: str, x: float, y: float, tip: str, hollow: bool = False) -> None:
        """A mark with what hovering shows; an arrow at the edge if it lies outside."""
        if self.is_outside(y):
            is_top = self.percent(y) > self.axes.get_ylim()[1]
            self.at_edge(name, x, "^" if is_top else "v", tip, is_top, metric_value(self.metric, y))
            return
        colour = self.palette[name].colour
        fill, rim = (PAPER, colour) if hollow else (colour, PAPER)
        style = {"markersize": 5.5, "markerfacecolor": fill, "markeredgecolor": rim}
        self.mark(name, x, self.percent(y), "o", tip, **style)

    def at_edge(
        self, name: str, x: float, kind: str, tip: str, is_top: bool, text: str = ""
    ) -> None:
        """A mark at the upper or lower edge, for a value that lies outside or a failure."""
        y, place = 0.97 if is_top else 0.03, self.axes.get_xaxis_transform()
        self.mark(name, x, y, kind, tip, transform=place, markersize=5.5, clip_on=False)
        if not text or len(self.labelled) == MAX_LABELS:
            return
        at = self.axes.transData.transform((x, 1.0))[0]
        offset = 6 + LABEL_HEIGHT * sum(abs(at - other) < LABEL_WIDTH for other in self.labelled)
        self.labelled.append(at)
        self.axes.annotate(
            text,
            (x, y),
            xycoords=place,
            xytext=(0, -offset if is_top else offset),
            textcoords="offset points",
            rotation=90,
            ha="center",
            va="top" if is_top else "bottom",
            fontsize="x-small",
            color=self.palette[name].colour,
        )

    def front(self, x: Sequence[float], y: Sequence[float]) -> None:
        self.axes.plot(x, self.percent(y), ":", color=SOFT, linewidth=1.2, zorder=1)


def axis_label(metric: str) -> str:
    return f"{words(metric)}{' (%)' if is_share(metric) else ''}"


def hopeful(values: Sequence[float], larger_is_better: bool) -> list[float]:
    """The values that a figure should tell apart: hopeless ones would flatten the differences.

    They reach from the best to four times as far as the median.
    """
    sign = 1 if larger_is_better else -1
    best = max(sign * value for value in values)
    edge = best - 4 * (best - sign * float(np.median(values)))
    return [value for value in values if sign * value >= edge]


def spans(values: Sequence[float]) -> bool:
    """Whether positive values are so far apart that they need a logarithmic scale."""
    return min(values) > 0 and max(values) >= LOG_FROM * min(values)


def minus_log_error(percent: NDArray[np.float64]) -> NDArray[np.float64]:
    return -np.log10(np.maximum(100 - np.asarray(percent, dtype=float), LEAST_ERROR))


def accuracy_of(position: NDArray[np.float64]) -> NDArray[np.float64]:
    return 100 - 10 ** -np.asarray(position, dtype=float)


def log_ticks(axis: Any, values: Sequence[float]) -> None:
    """Ticks at powers of ten, or closer where there are few, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    subs = (1.0, 2.0, 5.0) if math.log10(max(values) / min(values)) < 2 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
    axis.set_minor_locator(NullLocator())


def tick_text(value: float) -> str:
    if 1e-3 <= value < 1e5:
        return f"{value:g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}".replace("-", MINUS)


def error_ticks(axis: Any, least: float, greatest: float) -> None:
    """Accuracies at 1, 2, 3 and 5 times powers of ten below 100 %."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    errors = [m * 10.0**power for power in range(-3, 3) for m in (1, 2, 3, 5)]
    inside = [error for error in errors if least / 2 <= error <= greatest * 1.2 and error < 100]
    axis.set_major_locator(FixedLocator([100 - error for error in reversed(inside)]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
