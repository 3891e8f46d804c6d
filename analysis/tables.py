"""The tables of a comparison: in numbers for CSV, in words for everything else."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd

from analysis.comparison import Comparison, Row
from analysis.statistics import Estimate
from analysis.words import (
    change,
    duration,
    intervals,
    label,
    p_value,
    shown,
    size,
    words,
)

three_digits = partial(shown, digits=3)
COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "target_steps": ("steps to target", shown),
    "target_seconds": ("time to target", duration),
    "train_seconds": ("training", duration),
    "step_ms": ("step (ms)", three_digits),
    "optimizer_step_ms": ("optimizer (ms)", three_digits),
    "state_bytes_per_parameter": ("state (B/parameter)", three_digits),
    "peak_memory_bytes": ("peak memory", size),
}
LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "−": "$-$", "–": "--", "<": "$<$", ">": "$>$"}
)


def frame(comparison: Comparison) -> pd.DataFrame:
    """One row per candidate, plain numbers: what ``report.csv`` holds."""
    return pd.DataFrame([record(row, comparison) for row in comparison.rows])


def record(row: Row, comparison: Comparison) -> dict[str, Any]:
    question, diff = comparison.question, row.versus_best
    costs: dict[str, float | None] = {}
    for name in COSTS:
        if name in row.cost:
            costs |= spread(name, row.cost[name])
    return {
        "candidate": row.name,
        "n": len(row.runs),
        **spread(question.validation, row.validation),
        **spread(question.decides, row.value),
        "compared_on": question.decides,
        **spread("difference", diff),
        "p": diff and diff.p,
        "p_holm": diff and diff.adjusted_p,
        "test": diff and diff.test,
        "verdict": row.verdict,
        "target": comparison.target,
        "num_reached_target": row.num_reached,
        **costs,
        "num_settings": row.num_settings,
        "num_seeds_diverged": row.num_diverged,
        "num_runs": row.statuses.total(),
        "num_diverged": row.statuses["diverged"],
        "num_failed": row.statuses["failed"],
        "best_setting": label(row.setting),
    }


def spread(metric: str, around: Estimate | None) -> dict[str, float | None]:
    """A metric's mean and interval as columns."""
    mean, low, high = (around.mean, around.low, around.high) if around else (None, None, None)
    return {metric: mean, f"{metric}_low": low, f"{metric}_high": high}


def tables(comparison: Comparison) -> list[pd.DataFrame]:
    """Cells for people, on quality, tuning and cost: one table would be too wide.

    A column that no row fills is left out, and so is a row that fills none.
    """
    found = []
    for part in (quality(comparison), tuning(comparison), costs(comparison)):
        table = pd.DataFrame(part, index=[row.name for row in comparison.rows])
        table = table.loc[(table != "").any(axis=1), (table != "").any()]
        if not table.empty:
            found.append(table.rename_axis("candidate").reset_index())
    return found


def quality(comparison: Comparison) -> dict[str, list[str]]:
    question, rows = comparison.question, comparison.rows
    validation, decides = question.validation, question.decides
    diffs = [row.versus_best for row in rows]
    return {
        "n": [
            f"{len(r.runs)} of {r.num_seeds}" if r.num_diverged else f"{r.num_seeds}" for r in rows
        ],
        words(validation): intervals(validation, [row.validation for row in rows]),
        words(decides): intervals(decides, [row.value for row in rows]),
        "difference": [change(decides, diff) if diff else "" for diff in diffs],
        "p (Holm)": [p_value(diff.adjusted_p) if diff else "" for diff in diffs],
        "verdict": [row.verdict for row in rows],
    }


def tuning(comparison: Comparison) -> dict[str, list[str]]:
    rows = comparison.rows
    return {
        "best setting": [label(row.setting) for row in rows],
        "settings tried": [str(r.num_settings) if r.num_settings > 1 else "" for r in rows],
    }


def costs(comparison: Comparison) -> dict[str, list[str]]:
    columns = {"reached target": [f"{r.num_reached}/{r.num_seeds}" for r in comparison.rows]}
    for name, (heading, text) in COSTS.items():
        found = [row.cost.get(name) for row in comparison.rows]
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
