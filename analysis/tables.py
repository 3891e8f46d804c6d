"""The tables of a comparison: plain numbers for CSV, formatted text for the rest."""

import math
from collections import defaultdict
from typing import Any

import pandas as pd

from analysis.comparison import Comparison
from analysis.rows import Hit, Row
from analysis.statistics import Estimate
from analysis.tuning import is_swept
from analysis.words import (
    COSTS,
    bounds,
    duration,
    intervals,
    is_share,
    label,
    metric_value,
    p_value,
    shown,
    signed,
    words,
)

LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "−": "$-$", "–": "--", "<": "$<$", ">": "$>$"}
)


def frame(comparison: Comparison) -> pd.DataFrame:
    """The content of ``report.csv``: plain numbers, one row per candidate."""
    return pd.DataFrame([record(row, comparison) for row in every_row(comparison)])


def every_row(comparison: Comparison) -> list[Row]:
    return [*comparison.rows, *comparison.untuned]


def record(row: Row, comparison: Comparison) -> dict[str, Any]:
    question, diff = comparison.question, row.difference
    costs: dict[str, float | None] = {}
    for name in COSTS:
        if name in row.cost:
            costs |= spread(name, row.cost[name])
    for i, hit in enumerate(row.hits, start=1):
        costs |= {
            f"target_{i}": hit.target,
            f"target_{i}_reached": hit.num_reached,
            f"target_{i}_steps": hit.steps,
            f"target_{i}_seconds": hit.seconds,
        }
    return {
        "candidate": row.name,
        "n": row.num_units,
        "unit": comparison.unit,
        **spread(question.validation, row.validation),
        **spread(question.decides, row.value),
        "compared_on": question.decides,
        "rival": row.rival,
        **spread("difference", diff),
        "p": diff and diff.p,
        "p_holm": diff and diff.adjusted_p,
        "test": diff and diff.test,
        **spread("to_best", row.to_best),
        **spread("wins", row.wins),
        "verdict": row.verdict,
        **costs,
        "num_settings": row.num_settings,
        "num_reported": row.num_runs,
        "num_reported_diverged": len(row.diverged),
        "num_runs": row.statuses.total(),
        "num_diverged": row.statuses["diverged"],
        "num_failed": row.statuses["failed"],
        "best_setting": best_settings(row),
    }


def spread(metric: str, around: Estimate | None) -> dict[str, float | None]:
    """A metric's mean and interval as columns."""
    mean, low, high = (around.mean, around.low, around.high) if around else (None, None, None)
    return {metric: mean, f"{metric}_low": low, f"{metric}_high": high}


def tables(comparison: Comparison) -> list[pd.DataFrame]:
    """Formatted tables of quality, tuning, targets and cost; one table would be too wide.

    Empty columns and rows are left out.
    """
    found = []
    rows = every_row(comparison)
    for part in (quality(comparison, rows), tuning(rows), times(comparison, rows), costs(rows)):
        table = pd.DataFrame(part, index=[row.name for row in rows])
        table = table.loc[(table != "").any(axis=1), (table != "").any()]
        if not table.empty:
            found.append(table.rename_axis("candidate").reset_index())
    return found


def quality(comparison: Comparison, rows: list[Row]) -> dict[str, list[str]]:
    decides = comparison.question.decides
    diffs = [row.difference for row in rows]
    return {
        f"{comparison.unit}s": [str(row.num_units) for row in rows],
        "diverged": [f"{len(r.diverged)} of {r.num_runs}" if r.diverged else "" for r in rows],
        words(decides): intervals(decides, [row.value for row in rows]),
        f"vs. best other{' (pp)' * is_share(decides)}": [
            f"{signed(decides, row.to_best.mean)}{bounds(decides, row.to_best)}"
            if row.to_best
            else ""
            for row in rows
        ],
        "p (Holm)": [p_value(diff.adjusted_p) if diff else "" for diff in diffs],
        "win rate": [share(row.wins) if row.wins else "" for row in rows],
        "verdict": [row.verdict for row in rows],
    }


def share(wins: Estimate) -> str:
    ends = "" if wins.low is None or wins.high is None else f" [{wins.low:.0%}, {wins.high:.0%}]"
    return f"{wins.mean:.0%}{ends}"


def tuning(rows: list[Row]) -> dict[str, list[str]]:
    return {
        "best settings": [best_settings(row) for row in rows],
        "settings tried": [str(r.num_settings) if r.num_settings > 1 else "" for r in rows],
    }


def best_settings(row: Row) -> str:
    """The settings that replicates chose: numbers as a range, other values listed."""
    found: dict[str, list[Any]] = defaultdict(list)
    for setting in row.settings:
        for key, value in setting:
            found[key].append(value)
    return label((key, span(values)) for key, values in found.items())


def span(values: list[Any]) -> Any:
    if len(set(values)) == 1:
        return values[0]
    if all(map(is_swept, values)):
        return f"{min(values):g} to {max(values):g}"
    return " or ".join(dict.fromkeys(map(str, values)))


def times(comparison: Comparison, rows: list[Row]) -> dict[str, list[str]]:
    """Validation, unless candidates are compared on it, and the cost to reach each target."""
    metric = comparison.question.validation
    values = intervals(metric, [row.validation for row in rows])
    columns = {words(metric): values} if comparison.question.is_tested else {}
    for i, target in enumerate(comparison.targets):
        columns[f"to reach {metric_value(metric, target)}"] = [
            until(row.hits[i], row) for row in rows
        ]
    return columns


def until(hit: Hit, row: Row) -> str:
    if math.isinf(hit.steps):
        reached = f"only {hit.num_reached} of {row.num_runs} runs"
        return reached if hit.num_reached else "not reached"
    return f"{shown(hit.steps)} updates, {duration(hit.seconds)}"


def costs(rows: list[Row]) -> dict[str, list[str]]:
    columns: dict[str, list[str]] = {}
    for name, (heading, text) in COSTS.items():
        found = [row.cost.get(name) for row in rows]
        columns[heading] = [text(cost.mean) if cost else "" for cost in found]
    return columns


def latex(table: pd.DataFrame, caption: str) -> str:
    """A table for ``\\input``; needs ``\\usepackage{booktabs}``."""
    escaped = table.map(in_latex).rename(columns=in_latex)
    return "% needs \\usepackage{booktabs}\n" + escaped.style.hide(axis="index").to_latex(
        caption=in_latex(caption),
        column_format="l" * table.shape[1],
        hrules=True,
        position_float="centering",
    )


def in_latex(text: str) -> str:
    return text.translate(LATEX)
