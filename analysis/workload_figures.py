"""The figures of a report over workloads: distances to the best, time to the target, ranks."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.comparison import UNTESTED
from analysis.figures import Bar, forest
from analysis.plot import COLOURS, INK, Figure, Plot
from analysis.statistics import Estimate
from analysis.words import listed, metric_value, shown
from analysis.workloads import Workload

FAR_BEHIND = 10.0  # standard deviations
FULL_COLOUR = 0.55  # opacity at which text stays readable, on light and dark pages
MANY_WORKLOADS = 4  # more need a wide figure
LETTERS = 12  # per line of a heading
APART = 0.006  # shift between lines of the same value, as a share of the height


def heat_map(workloads: Sequence[Workload]) -> Figure:
    """Heat map of candidates by workloads: value, verdict and distance to the best."""
    names = workloads[0].names
    headings = [textwrap.fill(workload.heading, LETTERS) for workload in workloads]

    def draw(plot: Plot) -> None:
        from matplotlib.patches import Rectangle

        axes = plot.axes
        axes.set(xlim=(-0.5, len(workloads) - 0.5), ylim=(len(names) - 0.5, -0.5))
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.xaxis.tick_top()
        axes.set_xticks(range(len(workloads)), headings)
        axes.set_yticks(range(len(names)), [textwrap.fill(name, 2 * LETTERS) for name in names])
        axes.tick_params(length=0, labelcolor=INK)
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": INK}
        for x, workload in enumerate(workloads):
            for y, (name, behind) in enumerate(zip(names, workload.behind, strict=True)):
                area = Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, linewidth=0)
                area.set(facecolor=COLOURS[1], alpha=shade(behind))
                area.set_gid(f"series|{name} on {workload.name}: {in_words(behind)}")
                axes.add_patch(area)
                value, verdict = cell(workload, y)
                axes.text(x, y - 0.18, value, fontweight="bold", **style)
                axes.text(x, y + 0.2, verdict, fontsize="small", **style)

    note = (
        "Mean, and verdict of the workload's own study. Colour: distance to the study's best in "
        "standard deviations between replicates or seeds (median over the candidates), on a "
        "logarithmic scale from none to full colour at ten."
    )
    height, is_wide = 0.6 + 0.4 * len(names), len(workloads) > MANY_WORKLOADS
    return Figure("candidates on each workload", note, draw, (), height, is_wide)


def cell(workload: Workload, i: int) -> tuple[str, str]:
    """The value and the verdict of a candidate."""
    row = workload.rows[i]
    metric = workload.comparison.question.decides
    value = metric_value(metric, row.value.mean) if row.value else "–"
    return value, "untested" if row.verdict == UNTESTED else row.verdict


def shade(behind: float) -> float:
    """Opacity of a cell; logarithmic, so that the worst do not hide the rest."""
    share = math.log1p(behind) / math.log1p(FAR_BEHIND)
    return 0.0 if math.isnan(share) else FULL_COLOUR * min(1.0, share)


def in_words(behind: float) -> str:
    is_known = math.isfinite(behind)
    return f"{shown(behind, 2)} standard deviations behind" if is_known else "distance unknown"


def profiles(workloads: Sequence[Workload]) -> list[Figure]:
    """Performance profiles of the updates to the target, relative to the fastest candidate.

    Dolan & Moré 2002, doi:10.1007/s101070100263. Empty if no target was reached.
    """
    names = workloads[0].names
    ratios = np.array([workload.slowdown for workload in workloads]).T  # by candidate
    reached = ratios[np.isfinite(ratios)]
    if not reached.size:
        return []
    end = 1.1 * max(reached.max(), 2.0)

    def draw(plot: Plot) -> None:
        plot.x_axis("updates, as a multiple of the fastest candidate's", [1.0, end])
        plot.axes.set(xlim=(1.0, end), ylim=(-0.05, 1.05), ylabel="share of workloads")
        plot.axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
        for i, (name, of_candidate) in enumerate(zip(names, ratios, strict=True)):
            x = np.unique([1.0, *of_candidate[of_candidate < end], end])
            y = (of_candidate <= x[:, None]).mean(axis=1) + APART * (len(names) / 2 - i)
            look = plot.palette[name].line
            plot.mark(name, x, y, look, drawstyle="steps-post", linewidth=1.6)

    targets = [
        f"{workload.name} {metric_value(comparison.question.validation, comparison.target)}"
        for workload in workloads
        for comparison in [workload.comparison]
    ]
    note = (
        "Performance profiles (Dolan & Moré 2002): the share of workloads on which a candidate's "
        "median run reaches the validation target within a given multiple of the fastest "
        f"candidate's updates. Targets: {listed(targets, most=len(targets))}. Lines are shifted "
        "slightly so that none hides another."
    )
    return [Figure("updates to the target over workloads", note, draw, tuple(names))]


def rank_forest(ranks: pd.DataFrame, means: Sequence[Estimate], texts: Sequence[str]) -> Figure:
    """Each candidate's mean rank with its interval, and its ranks on individual workloads."""
    bars = [
        Bar(str(name), text, mean, ranks.loc[name].tolist())
        for name, mean, text in zip(ranks.index, means, texts, strict=True)
    ]
    note = "Mean rank, 95 % interval and individual workloads; 1 is best."
    return forest("mean rank over workloads", "rank", note, bars, [mean.mean for mean in means])
