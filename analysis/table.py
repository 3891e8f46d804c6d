"""The table of a comparison, once in numbers (CSV) and once in words (terminal and page)."""

from collections.abc import Callable, Iterator
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
    metric_value,
    p_value,
    shown,
    size,
    standing,
    words,
)


def frame(comparison: Comparison) -> pd.DataFrame:
    """One row per candidate, plain numbers: what ``report.csv`` holds."""
    return pd.DataFrame([record(row, comparison) for row in comparison.rows])


def record(row: Row, comparison: Comparison) -> dict[str, Any]:
    question, diff = comparison.question, row.versus_best
    values: dict[str, Any] = {"candidate": row.name, "n": len(row.runs)}
    values |= spread(question.validation, row.validation)
    if question.test:
        values |= spread(question.test, row.test)
    values |= {
        "compared_on": question.decides,
        "difference": diff and diff.mean,
        "difference_low": diff and diff.low,
        "difference_high": diff and diff.high,
        "p": diff and diff.p,
        "p_holm": diff and diff.adjusted_p,
        "test": diff and diff.test,
        "verdict": standing(row, comparison),
        "target": comparison.target,
        "num_reached_target": row.num_reached,
    }
    for name, around in row.cost.items():
        values |= spread(name, around)
    values |= {
        "num_settings": row.num_settings,
        "num_seeds_diverged": row.num_diverged,
        "num_runs": row.num(),
        "num_diverged": row.num("diverged"),
        "num_failed": row.num("failed"),
        "best_setting": label(row.setting),
    }
    return values


def spread(metric: str, around: Estimate | None) -> dict[str, float | None]:
    """A metric's mean and interval as columns."""
    mean, low, high = (around.mean, around.low, around.high) if around else (None, None, None)
    return {metric: mean, f"{metric}_low": low, f"{metric}_high": high}


def tables(comparison: Comparison) -> list[tuple[list[str], list[list[str]]]]:
    """Headings and cells for people, on quality, tuning and cost: one table would be too wide.

    A column that no row fills is left out, and so is a row that fills none.
    """
    question = comparison.question
    validation = intervals(question.validation, [row.validation for row in comparison.rows])
    test = intervals(question.decides, [row.test for row in comparison.rows])
    rows = [
        cells(row, comparison, *texts)
        for row, *texts in zip(comparison.rows, validation, test, strict=True)
    ]
    found = []
    for part in range(len(rows[0])):
        columns = [name for name in rows[0][part] if any(row[part][name] for row in rows)]
        body = [
            [row.name, *(texts[part][name] for name in columns)]
            for row, texts in zip(comparison.rows, rows, strict=True)
            if any(texts[part][name] for name in columns)
        ]
        if columns:
            found.append((["candidate", *columns], body))
    return found


def cells(
    row: Row, comparison: Comparison, validation: str, test: str
) -> tuple[dict[str, str], ...]:
    question, diff, cost = comparison.question, row.versus_best, row.cost

    def text(name: str, show: Callable[[float], str]) -> str:
        return show(cost[name].mean) if name in cost else ""

    def three_digits(value: float) -> str:
        return shown(value, 3)

    quality = {
        "n": f"{len(row.runs)} of {row.num_seeds}" if row.num_diverged else str(len(row.runs)),
        words(question.validation): validation,
        **({words(question.test): test} if question.test else {}),
        "difference": change(question.decides, diff) if diff else "",
        "p (Holm)": p_value(diff.adjusted_p) if diff else "",
        "verdict": standing(row, comparison) or "no value",
    }
    tuning = {
        "best setting": label(row.setting),
        "settings tried": str(row.num_settings) if row.num_settings > 1 else "",
        "other runs": "; ".join(other_runs(row)),
    }
    costs = {
        "reached target": "" if comparison.target is None else f"{row.num_reached}/{row.num_seeds}",
        "steps to target": text("target_steps", shown),
        "time to target": text("target_seconds", duration),
        "training": text("train_seconds", duration),
        "step (ms)": text("step_ms", three_digits),
        "optimizer (ms)": text("optimizer_step_ms", three_digits),
        "state (B/parameter)": text("state_bytes_per_parameter", three_digits),
        "peak memory": text("peak_memory_bytes", size),
    }
    return quality, tuning, costs


def other_runs(row: Row) -> Iterator[str]:
    """How runs ended that did not complete, trials apart from repeats."""
    for phase, statuses in row.statuses.items():
        ends = [f"{count} {status}" for status, count in statuses.items() if status != "completed"]
        if ends:
            yield f"{phase}: {', '.join(ends)}" if phase else ", ".join(ends)


def notes(comparison: Comparison) -> str:
    """How to read the table."""
    question = comparison.question
    parts = [
        f"Mean over n seeds with the 95 % t-interval; {better(question)}.",
        f"Settings are chosen on {words(question.validation)}, the best value a run reached.",
    ]
    estimates = [estimate for row in comparison.rows for estimate in (row.validation, row.test)]
    if any(estimate.is_cut for estimate in estimates if estimate):
        parts.append("Intervals end at what is possible: 0, and 100 % of a share.")
    diffs = [row.versus_best for row in comparison.rows]
    tests = sorted({diff.test for diff in diffs if diff and diff.test})
    if tests:
        parts.append(
            f"Difference in {words(question.decides)} to {comparison.best.name}; p by "
            f"{', '.join(tests)}, corrected for the comparisons of all pairs (Holm)."
        )
    if comparison.target is not None:
        target = metric_value(question.validation, comparison.target)
        parts.append(
            f"Target: {words(question.validation)} of {target}; steps and time are means over the "
            "runs that reached it, evaluation excluded."
        )
    return " ".join(parts)
