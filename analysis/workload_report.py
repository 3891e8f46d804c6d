"""The report over several workloads: its sentences, table and figures."""

import math
import os
import shlex
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.claims import paragraph
from analysis.comparison import BEST, LEAST_UNITS, MAY_BE_BEST, UNTESTED, WORSE
from analysis.figures import Bar, forest
from analysis.page import Document
from analysis.plot import COLOURS, INK, Figure, Palette, Plot
from analysis.provenance import facts
from analysis.statistics import Estimate
from analysis.sweep import Sweep
from analysis.tables import spread
from analysis.words import listed, metric_value, shown
from analysis.workloads import Workload, by_mean, first_of, mean_ranks, rank_table, workloads_of

FEW = 2  # workloads that a sentence lists; more are counted
FAR_BEHIND = 10.0  # standard deviations
FULL_COLOUR = 0.55  # opacity at which text stays readable, on light and dark pages
MANY_WORKLOADS = 4  # more need a wide figure
LETTERS = 12  # per line of a heading
APART = 0.006  # shift between lines of the same value, as a share of the height


class WorkloadsReport(Document):
    """The report over several workloads.

    Args:
        sweeps: by workload.
        metric, mode: to compare all on; None: those that each study monitors.

    Raises:
        ReportError: if a workload cannot be compared.
    """

    page_template = "workloads.html"

    def __init__(
        self, sweeps: dict[str, Sweep], folder: str, metric: str | None, mode: str | None
    ) -> None:
        self.workloads = workloads_of(sweeps, metric, mode)
        self.parts = [workload.report for workload in self.workloads]
        self.names, num = self.workloads[0].names, len(self.parts)
        num_runs = sum(len(part.sweep.runs) for part in self.parts)
        self.title = f"{folder}: {num} workloads, {len(self.names)} candidates, {num_runs} runs"
        self.ranks = rank_table(self.workloads)
        self.mean_ranks = mean_ranks([workload.ranks for workload in self.workloads])
        self.rank_texts = [
            f"{rank.mean:.2f}" + ("" if rank.low is None else f" [{rank.low:.2f}, {rank.high:.2f}]")
            for rank in self.mean_ranks
        ]
        self.claims = [*self.verdicts(), *self.order()]
        self.caveats = [*self.limits(), *self.of_parts()]
        self.tables, self.frame = [self.table()], self.numbers()
        context = {"report": self, "facts": [facts(part.comparison.used) for part in self.parts]}
        self.notes, self.methods = (
            paragraph("workloads.txt", {**context, "is_methods": is_methods})
            for is_methods in (False, True)
        )
        rows = [row for part in self.parts for row in part.comparison.rows]
        self.palette = Palette([*self.names, *(row.name for row in rows)])
        folders = [os.path.relpath(part.sweep.studies[0].directory) for part in self.parts]
        self.details = {
            "commands": [f"python report.py {shlex.quote(folder)}" for folder in folders]
        }

    def on(self, i: int) -> dict[str, list[str]]:
        """The workloads by the verdict there on candidate ``i``."""
        found: dict[str, list[str]] = defaultdict(list)
        for workload in self.workloads:
            verdict = workload.rows[i].verdict
            found[MAY_BE_BEST if verdict == BEST else verdict].append(workload.name)
        return found

    def verdicts(self) -> list[str]:
        """On which workloads each candidate may be the best, and on which it is worse."""
        num = len(self.workloads)
        everywhere, others = [], []
        for i, name in enumerate(self.names):
            found = self.on(i)
            best, worse = found.pop(MAY_BE_BEST, []), found.pop(WORSE, [])
            if len(best) == num:
                everywhere.append(name)
                continue
            said = [f"may be the best on {len(best)} of {num}"] * bool(best)
            if worse:
                where = listed(worse) if len(worse) <= FEW else f"{len(worse)} of {num}"
                said.append(f"is detectably worse on {where}")
            said += [f"cannot be judged on {listed(rest)}" for rest in found.values()]
            others.append(f"{name} {listed(said)}")
        every = "both workloads" if num == 2 else f"all {num} workloads"
        who = listed(everywhere) or "No candidate"
        return [f"{who} may be the best on {every}.", *[f"{'; '.join(others)}."] * bool(others)]

    def order(self) -> list[str]:
        """The order by mean rank, and whether it depends on a single workload."""
        first = first_of(self.ranks)
        left = {name: self.ranks.drop(columns=name) for name in self.ranks}
        sentences = [
            f"Lowest mean rank: {listed(first)}, {self.rank_texts[0]} of {len(self.names)}."
        ]
        sentences += [
            f"Without {name}: {listed(found)}."
            for name, ranks in left.items()
            if (found := first_of(ranks)) != first
        ]
        if len(sentences) == 1:
            stay = "stays" if len(first) == 1 else "stay"
            sentences.append(f"{listed(first)} {stay} first whichever workload is left out.")
        if moved := [name for name, ranks in left.items() if by_mean(ranks) != self.names]:
            any_of = "any one of " * (len(moved) > 1)
            sentences.append(f"The order changes if {any_of}{listed(moved)} is left out.")
        scope = (
            f"This holds for these {len(left)} workloads, which are not a random sample of tasks; "
            "ranks do not show how large a difference is."
        )
        return [" ".join(sentences), scope]

    def limits(self) -> list[str]:
        """Caveats about ranks and verdicts over these workloads."""
        rows = [row for part in self.parts for row in part.comparison.rows]
        found = {
            "Not run on all workloads, so left out here:": {row.name for row in rows}
            - {*self.names},
            f"No intervals of mean ranks: the candidates share fewer than {LEAST_UNITS} replicates "
            "or seeds on": [w.name for w in self.workloads if len(w.ranks) < LEAST_UNITS],
            "No candidate's median run reaches the target on": [
                w.name for w in self.workloads if not np.isfinite(w.slowdown).any()
            ],
            "Tuned only once, so verdicts hold for settings, not candidates, on": [
                w.name for w in self.workloads if not w.comparison.is_replicated
            ],
        }
        return [f"{said} {listed(sorted(names))}." for said, names in found.items() if names]

    def of_parts(self) -> list[str]:
        """Caveats about the verdicts on single workloads; shared ones are stated once."""
        found: dict[str, list[str]] = defaultdict(list)
        for part in self.parts:
            for said in (*part.doubts, *part.caveats):
                found[said].append(part.title)
        return [f"On {listed(names)}: {said}" for said, names in found.items()]

    def table(self) -> pd.DataFrame:
        num = range(len(self.names))
        columns = {
            workload.heading: [", ".join(cell(workload, i)) for i in num]
            for workload in self.workloads
        }
        counts = [f"{len(self.on(i)[MAY_BE_BEST])} of {len(self.workloads)}" for i in num]
        last = {"may be best on": counts, "mean rank": self.rank_texts}
        return pd.DataFrame({"candidate": self.names, **columns, **last})

    def numbers(self) -> pd.DataFrame:
        """A row for each workload and candidate."""
        return pd.DataFrame(
            {
                "workload": workload.name,
                "candidate": row.name,
                "n": row.num_units,
                "unit": workload.comparison.unit,
                "metric": workload.comparison.question.decides,
                **spread("value", row.value),
                "verdict": row.verdict,
                "mean_rank": self.ranks.loc[row.name, workload.name],
                "standard_deviations_behind": workload.behind[i],
                "target": workload.comparison.target,
                "updates_of_fastest": workload.slowdown[i],
            }
            for workload in self.workloads
            for i, row in enumerate(workload.rows)
        )

    def figures(self) -> dict[str, list[Figure]]:
        ranks = rank_forest(self.ranks, self.mean_ranks, self.rank_texts)
        return {"result": [heat_map(self.workloads), *profiles(self.workloads), ranks]}


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
