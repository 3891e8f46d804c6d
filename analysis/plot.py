"""One plot on matplotlib's axes: scales that suit the data, marks with what hovering shows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.looks import INK, PAPER, SOFT, Palette
from analysis.question import is_share
from analysis.wording import MINUS, metric_value, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

LOG_FROM = 5  # values that span more than this factor are shown on a logarithmic scale
LEAST_ERROR = 0.005  # percent; an accuracy of 100 % has no logarithm of its error
MAX_LABELS = 12  # values written beside marks at the edge; more would cover each other
LABEL_WIDTH, LABEL_HEIGHT = 12, 30


@dataclass(frozen=True)
class Figure:
    """What one figure shows.

    Attributes:
        name: of its files.
        names: of the legend, in order; empty if the plot names them itself.
        height: in inches; None: in proportion to the width.
    """

    name: str
    title: str
    note: str
    draw: Callable[["Plot"], None]
    names: tuple[str, ...]
    height: float | None = None


class Plot:
    """Axes and the looks of candidates; y is a metric, shares in percent."""

    def __init__(self, axes: "Axes", palette: Palette) -> None:
        self.axes = axes
        self.palette = palette
        self.metric = ""
        self.edge: float | None = None  # what is worse lies outside
        self.labelled: list[float] = []  # where along x values stand at the edge, in pixels

    def scale_x(self, label: str, values: Sequence[float], log: bool | None = None) -> None:
        """Name the axis; logarithmic if asked for, or if the values span enough."""
        self.axes.set_xlabel(label)
        if spans(values, LOG_FROM) if log is None else log:
            self.axes.set_xscale("log")
            log_ticks(self.axes.xaxis, values)
        if values:  # now, since values written at the edge must know their places
            self.axes.dataLim.update_from_data_x(values)
            self.axes.autoscale_view(scaley=False)
            self.axes.set_xlim(*self.axes.get_xlim())

    def scale_y(self, metric: str, values: Sequence[float], log: bool | None = None) -> None:
        """Name the axis after the metric; errors and losses that span enough are logarithmic.

        Of an accuracy the error is, so that 99 and 99.9 % are as far apart as 90 and 99 %.
        """
        self.metric = metric
        share = is_share(metric)
        self.axes.set_ylabel(f"{words(metric)}{' (%)' if share else ''}")
        if share:
            errors = [max(100 - 100 * value, LEAST_ERROR) for value in values]
            if spans(errors, LOG_FROM) and log is not False:
                self.axes.set_yscale("function", functions=(minus_log_error, accuracy_of))
                error_ticks(self.axes.yaxis, min(errors), max(errors))
        elif spans(values, LOG_FROM) if log is None else log:
            self.axes.set_yscale("log")
            log_ticks(self.axes.yaxis, values)

    def scale_rate(self, metric: str, values: Sequence[float]) -> None:
        """A learning rate: logarithmic, and no more than four decades of a schedule's end."""
        positive = [value for value in values if value > 0]
        self.scale_y(metric, positive, log=bool(positive))
        if positive and min(positive) < 1e-4 * max(positive):
            self.axes.set_ylim(1e-4 * max(positive), 2 * max(positive))

    def focus(self, values: Sequence[float], larger_is_better: bool, edge: float) -> None:
        """End the y axis at ``edge`` if there are worse values; arrows point at those."""
        worse = [v for v in values if (v < edge if larger_is_better else v > edge)]
        if not worse or edge in (max(values), min(values)):
            return
        self.edge = edge
        best = max(values) if larger_is_better else min(values)
        bottom, top = (edge, best) if larger_is_better else (best, edge)
        margin = 0.06 * (top - bottom)
        limits = self.percent(bottom - margin), self.percent(top + margin)
        if self.axes.get_yscale() == "function":
            limits = limits[0], min(limits[1], 100 - 0.8 * (100 - self.percent(best)))
        elif self.axes.get_yscale() == "log":
            limits = self.percent(bottom) * 0.9, self.percent(top) * 1.1
        self.axes.set_ylim(*limits)

    def is_outside(self, value: float) -> bool:
        low, high = self.axes.get_ylim()
        return self.edge is not None and not low <= self.percent(value) <= high

    def percent(self, value: Any) -> Any:
        return 100 * np.asarray(value) if is_share(self.metric) else value

    def line(
        self, name: str, x: Sequence[float], y: Sequence[float], width: float = 1.6, **style: Any
    ) -> None:
        look = self.palette[name]
        (drawn,) = self.axes.plot(
            x,
            self.percent(y),
            color=look.colour,
            linestyle="--" if look.dashed else "-",
            linewidth=0.8 if look.is_other else width,
            **{"alpha": 0.5 if look.is_other else 1.0, "zorder": self.depth(name), **style},
        )
        drawn.set_gid(f"{look.css_class}|{name}")

    def band(
        self, name: str, x: Sequence[float], low: Sequence[float], high: Sequence[float]
    ) -> None:
        look = self.palette[name]
        style: dict[str, Any] = {"color": look.colour, "alpha": 0.16, "linewidth": 0}
        area = self.axes.fill_between(x, self.percent(low), self.percent(high), **style)
        area.set_gid(f"{look.css_class}|")

    def dot(self, name: str, x: float, y: float, tip: str, hollow: bool = False) -> None:
        """A mark with what hovering shows; an arrow at the edge if it lies outside."""
        if self.is_outside(y):
            self.arrow(name, x, y, tip)
            return
        look = self.palette[name]
        fill, rim = (PAPER, look.colour) if hollow else (look.colour, PAPER)
        (drawn,) = self.axes.plot(x, self.percent(y), "o", zorder=self.depth(name) + 0.5)
        drawn.set(markersize=5.5, markerfacecolor=fill, markeredgecolor=rim)
        drawn.set_gid(f"{look.css_class}|{tip}")

    def arrow(self, name: str, x: float, y: float, tip: str) -> None:
        """An arrow at the edge towards a value outside, with the value."""
        look = self.palette[name]
        low, _ = self.axes.get_ylim()
        down = self.percent(y) < low
        (drawn,) = self.axes.plot(
            x,
            0.03 if down else 0.97,
            "v" if down else "^",
            transform=self.axes.get_xaxis_transform(),
            color=look.colour,
            markersize=5,
            clip_on=False,
        )
        drawn.set_gid(f"{look.css_class}|{tip}")
        self.labelled.append(self.axes.transData.transform((x, 1.0))[0])
        near = sum(abs(at - self.labelled[-1]) < LABEL_WIDTH for at in self.labelled[:-1])
        if len(self.labelled) <= MAX_LABELS:
            offset = 6 + LABEL_HEIGHT * near
            self.axes.annotate(
                metric_value(self.metric, y),
                (x, 0.03 if down else 0.97),
                xycoords=self.axes.get_xaxis_transform(),
                xytext=(0, offset if down else -offset),
                textcoords="offset points",
                rotation=90,
                ha="center",
                va="bottom" if down else "top",
                fontsize="x-small",
                color=look.colour,
            )

    def cross(self, name: str, x: float, tip: str, at_top: bool) -> None:
        """A failure: at the bad edge of the plot, since it has no value."""
        look = self.palette[name]
        (drawn,) = self.axes.plot(
            x,
            0.97 if at_top else 0.03,
            "x",
            transform=self.axes.get_xaxis_transform(),
            color=look.colour,
            markersize=6,
            clip_on=False,
        )
        drawn.set_gid(f"{look.css_class}|{tip}")

    def front(self, x: Sequence[float], y: Sequence[float]) -> None:
        self.axes.plot(x, self.percent(y), ":", color=SOFT, linewidth=1.2, zorder=1)

    def depth(self, name: str) -> float:
        """The best candidates lie on top of the others."""
        order = self.palette.order
        return 3 - order.get(name, len(order)) / (len(order) + 1)

    def legend(self, canvas: "Canvas", names: Sequence[str], num_columns: int) -> None:
        from matplotlib.lines import Line2D

        keys = self.palette.legend(names)
        handles = [
            Line2D([], [], color=look.colour, linestyle="--" if look.dashed else "-", label=name)
            for look, name in keys
        ]
        columns = min(num_columns, len(handles))
        canvas.legend(handles=handles, loc="outside lower center", ncols=columns, labelcolor=INK)


def spans(values: Sequence[float], factor: float) -> bool:
    """Whether positive values are so far apart that they need a logarithmic scale."""
    return bool(values) and min(values) > 0 and max(values) >= factor * min(values)


def minus_log_error(percent: NDArray[np.float64]) -> NDArray[np.float64]:
    return -np.log10(np.maximum(100 - np.asarray(percent, dtype=float), LEAST_ERROR))


def accuracy_of(position: NDArray[np.float64]) -> NDArray[np.float64]:
    return 100 - 10 ** -np.asarray(position, dtype=float)


def log_ticks(axis: Any, values: Sequence[float]) -> None:
    """Ticks at powers of ten, or closer where there are few, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    positive = [value for value in values if value > 0]
    decades = math.log10(max(positive) / min(positive)) if positive else 1
    subs = (1.0, 2.0, 5.0) if decades < 2 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
    axis.set_minor_locator(NullLocator())


def tick_text(value: float) -> str:
    if 1e-3 <= value < 1e5:
        return f"{value:g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}".replace("-", MINUS)


def error_ticks(axis: Any, least: float, greatest: float) -> None:
    """Accuracies at 1, 2 and 5 times powers of ten below 100 %."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    errors = [m * 10.0**power for power in range(-3, 3) for m in (1, 2, 3, 5)]
    inside = [error for error in errors if least / 2 <= error <= greatest * 1.2 and error < 100]
    axis.set_major_locator(FixedLocator([100 - error for error in reversed(inside)]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
