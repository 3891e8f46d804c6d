"""The table of a comparison, once in numbers (CSV) and once in words (terminal and page)."""

from typing import Any

import pandas as pd

from analysis.candidates import label
from analysis.comparison import Comparison, Row
from analysis.statistics import Estimate
from analysis.wording import (
    better,
    change,
    duration,
    interval,
    metric_value,
    p_value,
    shown,
    size,
    verdict,
)

COST_FROM = "reached target"  # the first column about cost


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
        "verdict": "best" if row is comparison.best else verdict(diff),
        "target": comparison.target,
        "num_reached_target": row.num_reached,
    }
    for name, around in row.cost.items():
        values |= spread(name, around)
    values |= {
        "num_settings": row.num_settings,
        "num_runs": sum(row.statuses.values()),
        "num_diverged": row.statuses["diverged"],
        "num_failed": row.statuses["failed"],
        "best_setting": label(row.setting),
    }
    return values


def spread(metric: str, around: Estimate | None) -> dict[str, float | None]:
    """A metric's mean and interval as columns."""
    mean, low, high = (around.mean, around.low, around.high) if around else (None, None, None)
    return {metric: mean, f"{metric}_low": low, f"{metric}_high": high}


def table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Headings and cells for people; a column that no row fills is left out."""
    rows = [cells(row, comparison) for row in comparison.rows]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    return columns, [[row[name] for name in columns] for row in rows]


def cells(row: Row, comparison: Comparison) -> dict[str, str]:
    question, diff, cost = comparison.question, row.versus_best, row.cost

    def mean(name: str) -> float | None:
        return cost[name].mean if name in cost else None

    def text(name: str, show: Any = shown) -> str:
        value = mean(name)
        return "" if value is None else show(value)

    if diff is not None:
        said, p = verdict(diff), p_value(diff.adjusted_p)
        difference = change(question.decides, diff)
    else:
        said, p, difference = ("best" if row is comparison.best else "no value"), "", ""
    broken = [f"{row.statuses[name]} {name}" for name in row.statuses if name != "completed"]
    target = "" if comparison.target is None else f"{row.num_reached}/{len(row.runs)}"
    return {
        "candidate": row.name,
        "n": str(len(row.runs)),
        question.validation: interval(question.validation, row.validation),
        **({question.test: interval(question.test, row.test)} if question.test else {}),
        "difference": difference,
        "p (Holm)": p,
        "verdict": said,
        "best setting": label(row.setting),
        "settings tried": str(row.num_settings) if row.num_settings > 1 else "",
        "other runs": ", ".join(broken),
        COST_FROM: target,
        "steps to target": text("target_steps"),
        "time to target": text("target_seconds", duration),
        "training": text("train_seconds", duration),
        "ms/step": text("step_ms", lambda value: shown(value, 3)),
        "optimizer ms": text("optimizer_step_ms", lambda value: shown(value, 3)),
        "state B/param": text("state_bytes_per_parameter", lambda value: shown(value, 3)),
        "peak memory": text("peak_memory_bytes", size),
    }


def notes(comparison: Comparison) -> str:
    """How to read the table."""
    question = comparison.question
    parts = [
        f"Mean over n seeds with the 95 % t-interval; {better(question)}.",
        f"Settings are chosen on {question.validation}, the best value a run reached.",
    ]
    tests = sorted({row.versus_best.test for row in comparison.rows if row.versus_best})
    if tests:
        parts.append(
            f"Difference in {question.decides} to {comparison.best.name}, the best mean; p by "
            f"{', '.join(tests)}, corrected for the comparisons of all pairs (Holm)."
        )
    if comparison.target is not None:
        target = metric_value(question.validation, comparison.target)
        parts.append(
            f"Target: {question.validation} of {target}; steps and time are means over the runs "
            "that reached it, evaluation excluded."
        )
    return " ".join(parts)
