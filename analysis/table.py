"""The table of a comparison, once in numbers (CSV) and once in words (everything else)."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd

from analysis.candidates import label
from analysis.comparison import Comparison, Row
from analysis.statistics import Estimate
from analysis.wording import (
    better,
    change,
    duration,
    intervals,
    listed,
    metric_value,
    p_value,
    shown,
    size,
    standing,
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
    statuses = sum(row.statuses.values(), Counter())
    tested = spread(question.decides, row.test) if question.is_tested else {}
    costs: dict[str, float | None] = {}
    for name, cost in row.cost.items():
        costs |= spread(name, cost)
    return {
        "candidate": row.name,
        "n": len(row.runs),
        **spread(question.validation, row.validation),
        **tested,
        "compared_on": question.decides,
        **spread("difference", diff),
        "p": diff and diff.p,
        "p_holm": diff and diff.adjusted_p,
        "test": diff and diff.test,
        "verdict": standing(row, comparison),
        "target": comparison.target,
        "num_reached_target": row.num_reached,
        **costs,
        "num_settings": row.num_settings,
        "num_seeds_diverged": row.num_diverged,
        "num_runs": statuses.total(),
        "num_diverged": statuses["diverged"],
        "num_failed": statuses["failed"],
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
    decides, diffs = question.decides, [row.versus_best for row in rows]
    columns = {
        "n": [number_of_seeds(row) for row in rows],
        words(question.validation): intervals(question.validation, [r.validation for r in rows]),
    }
    if question.is_tested:
        columns[words(decides)] = intervals(decides, [row.test for row in rows])
    return columns | {
        "difference": [change(decides, diff) if diff else "" for diff in diffs],
        "p (Holm)": [p_value(diff.adjusted_p) if diff else "" for diff in diffs],
        "verdict": [standing(row, comparison) or "no value" for row in rows],
    }


def number_of_seeds(row: Row) -> str:
    return f"{len(row.runs)} of {row.num_seeds}" if row.num_diverged else str(len(row.runs))


def tuning(comparison: Comparison) -> dict[str, list[str]]:
    rows = comparison.rows
    return {
        "best setting": [label(row.setting) for row in rows],
        "settings tried": [str(r.num_settings) if r.num_settings > 1 else "" for r in rows],
        "other runs": ["; ".join(other_runs(row)) for row in rows],
    }


def other_runs(row: Row) -> list[str]:
    """How runs ended that did not complete, trials apart from repeats."""
    ends = {
        phase: ", ".join(f"{n} {status}" for status, n in counts.items() if status != "completed")
        for phase, counts in row.statuses.items()
    }
    return [f"{phase}: {end}" if phase else end for phase, end in ends.items() if end]


def costs(comparison: Comparison) -> dict[str, list[str]]:
    columns = {}
    if comparison.target is not None:
        columns["reached target"] = [f"{r.num_reached}/{r.num_seeds}" for r in comparison.rows]
    for name, (heading, text) in COSTS.items():
        found = [row.cost.get(name) for row in comparison.rows]
        columns[heading] = [text(cost.mean) if cost else "" for cost in found]
    return columns


def notes(comparison: Comparison) -> str:
    """How to read the table."""
    question, rows = comparison.question, comparison.rows
    parts = [
        f"Mean over n seeds with the 95 % t-interval; {better(question)}.",
        f"Settings are chosen on {words(question.validation)}, the best value a run reached.",
    ]
    estimates = [estimate for row in rows for estimate in (row.validation, row.test)]
    if any(estimate.is_cut for estimate in estimates if estimate):
        parts.append("Intervals end at what is possible: 0, and 100 % of a share.")
    if tests := {row.versus_best.test for row in rows if row.versus_best} - {""}:
        parts.append(
            f"Difference in {words(question.decides)} to {comparison.best.name}; p by "
            f"{listed(sorted(tests))}, corrected for the comparisons of all pairs (Holm)."
        )
    if comparison.target is not None:
        target = metric_value(question.validation, comparison.target)
        parts.append(
            f"Target: {words(question.validation)} of {target}; steps and time are means over the "
            "runs that reached it, evaluation excluded."
        )
    return " ".join(parts)


def latex(comparison: Comparison, title: str) -> str:
    """The table of results, for ``\\input``; needs ``\\usepackage{booktabs}``."""
    table = tables(comparison)[0].map(in_latex).rename(columns=in_latex)
    return "% needs \\usepackage{booktabs}\n" + table.style.hide(axis="index").to_latex(
        caption=in_latex(f"{title}. {notes(comparison)}"),
        column_format="l" * table.shape[1],
        hrules=True,
        position_float="centering",
    )


def in_latex(text: str) -> str:
    return text.translate(LATEX)
