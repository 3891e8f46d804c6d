"""Numbers and claims in words: never more digits, and never more certainty, than there is."""

import math
import re
from collections.abc import Sequence

from analysis.comparison import Comparison, Row
from analysis.question import Question, is_share
from analysis.statistics import ALPHA, Difference, Estimate

MINUS = "\N{MINUS SIGN}"
WORSE = "worse"
NO_DIFFERENCE = "no detectable difference"
UNTESTED = "cannot be tested"
SURVIVORS = "seeds diverged"
GROUPS = ("optimizer", "scheduler", "phases", "trainer", "optim")  # say nothing more in a name
WORDS = {
    "val": "validation",
    "train": "training",
    "lr": "learning rate",
    "betas.0": "beta1",
    "betas.1": "beta2",
    "warmup_fraction": "warm-up fraction",
    "fid": "FID",
}
OPENINGS = {
    NO_DIFFERENCE: "No detectable difference from it",
    WORSE: "Detectably worse",
    UNTESTED: "Too few seeds to tell the difference from chance",
}


def shown(value: float, digits: int = 4) -> str:
    """A number with ``digits`` significant digits, readable in a table."""
    if value == 0 or 1e-4 <= abs(value) < 10**digits:
        text = f"{value:.{digits}g}"
    elif 1 <= abs(value) < 1e7:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits - 2}e}"
    return text.replace("-", MINUS)


def metric_value(metric: str, value: float) -> str:
    """Shares as percentages, everything else with four digits."""
    return f"{value:.2%}" if is_share(metric) else shown(value)


def words(key: str) -> str:
    """A metric or a setting as a reader calls it: ``test/accuracy`` is "test accuracy"."""
    parts = [part for part in re.split(r"[/.]", key) if part not in GROUPS] or [key]
    if parts[-1].isdigit() and len(parts) > 1:
        parts[-2:] = [f"{parts[-2]}.{parts[-1]}"]
    named = [WORDS.get(part, part.replace("_", " ")) for part in parts]
    if "/" not in key and len(named) > 1:
        return f"{named[-1]} ({' '.join(named[:-1])})"
    return " ".join(named)


def interval(metric: str, estimate: Estimate | None, in_brackets: bool | None = None) -> str:
    """``97.10% ± 0.60``: the mean and half of its interval; the mean alone if there is one seed.

    An interval that was cut to what is possible has no half: ``99.10% [97.40, 100.00]``.

    Args:
        in_brackets: give the ends; None: only of an interval that was cut.
    """
    if estimate is None:
        return "–"
    mean = metric_value(metric, estimate.mean)
    if estimate.is_cut if in_brackets is None else in_brackets:
        return f"{mean} {bounds(metric, estimate)}".rstrip()
    return mean + half(metric, estimate)


def intervals(metric: str, estimates: Sequence[Estimate | None]) -> list[str]:
    """A column of intervals, all of one form."""
    in_brackets = any(estimate.is_cut for estimate in estimates if estimate)
    return [interval(metric, estimate, in_brackets) for estimate in estimates]


def half(metric: str, around: Estimate) -> str:
    if around.high is None:
        return ""
    width = around.high - around.mean
    return f" ± {100 * width:.2f}" if is_share(metric) else f" ± {shown(width, 2)}"


def bounds(metric: str, around: Estimate) -> str:
    """An interval in brackets."""
    if around.low is None or around.high is None:
        return ""
    if is_share(metric):
        return f"[{100 * around.low:.2f}, {100 * around.high:.2f}]".replace("-", MINUS)
    return f"[{shown(around.low)}, {shown(around.high)}]"


def change(metric: str, difference: Difference) -> str:
    """``−1.13 ± 0.90 pp``: a signed difference; of shares in percentage points."""
    mean, unit = difference.mean, " pp" if is_share(metric) else ""
    signed = f"{100 * mean:+.2f}" if is_share(metric) else ("+" * (mean > 0)) + shown(mean, 3)
    return f"{signed}{half(metric, difference)}{unit}".replace("-", MINUS)


def p_value(p: float | None) -> str:
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def verdict(row: Row) -> str:
    """What a test allows to say of a candidate against the best."""
    if row.num_diverged:
        return SURVIVORS
    if row.versus_best is None:
        return ""
    if row.versus_best.adjusted_p is None:
        return UNTESTED
    return WORSE if row.versus_best.adjusted_p < ALPHA else NO_DIFFERENCE


def standing(row: Row, comparison: Comparison) -> str:
    """The verdict as the table has it; "best" only of a candidate that is shown to be."""
    if row is not comparison.best or row.num_diverged:
        return verdict(row)
    return "best" if is_shown_best(comparison) else first_mean(comparison)


def is_shown_best(comparison: Comparison) -> bool:
    """Whether every other candidate is detectably worse than the first."""
    others = comparison.rows[1:]
    return bool(others) and all(verdict(row) == WORSE for row in others)


def first_mean(comparison: Comparison) -> str:
    return "highest mean" if comparison.question.larger_is_better else "lowest mean"


def claims(comparison: Comparison) -> list[str]:
    """The comparison in sentences."""
    metric, best = comparison.question.decides, comparison.best
    kind = "is the best in" if is_shown_best(comparison) else f"has the {first_mean(comparison)}"
    sentences = [f"{best.name} {kind} {words(metric)}: {in_words(metric, best)}."]
    others = comparison.rows[1:]
    for said, opening in OPENINGS.items():
        if names := [with_p(row, metric) for row in others if verdict(row) == said]:
            sentences.append(f"{opening}: {listed(names, '; ')}.")
    if best.num_diverged:
        sentences.append(f"Every candidate has seeds that diverged: of {with_fate(best)}.")
    if names := [
        f"{with_fate(row)}, {interval(metric, row.value)} over the others"
        for row in others
        if row.num_diverged and row.value
    ]:
        sentences.append(
            "Ranked below and not tested, for survivors tell only half of it: "
            f"{listed(names, '; ')}."
        )
    if empty := [row.name for row in comparison.rows if row.value is None]:
        sentences.append(f"Without a finished run: {listed(empty, '; ')}.")
    return sentences


def with_fate(row: Row) -> str:
    """``adamw (5 of 8 seeds diverged)``, or the name alone."""
    if not row.num_diverged:
        return row.name
    return f"{row.name} ({row.num_diverged} of {row.num_seeds} seeds diverged)"


def listed(names: Sequence[str], separator: str = ", ", most: int = 6) -> str:
    """``a, b and c``; ``a, b and 7 more`` of many."""
    if len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return " and ".join(part for part in (separator.join(names[:-1]), *names[-1:]) if part)


def in_words(metric: str, row: Row) -> str:
    """A candidate's value with its interval, or why it has none."""
    value = row.value
    assert value is not None  # the first of a comparison has one
    mean = metric_value(metric, value.mean)
    if value.low is None:
        why = "one seed" if value.n == 1 else f"{value.n} seeds, all alike"
        return f"{mean} ({why}: no interval)"
    return f"{mean}, 95 % interval {bounds(metric, value)}, n = {value.n}"


def with_p(row: Row, metric: str) -> str:
    """A candidate, how far it is from the best, and how sure that is."""
    difference = row.versus_best
    assert difference is not None  # it was compared with the best
    sure = ""
    if difference.adjusted_p is not None:
        sure = f", p = {p_value(difference.adjusted_p)}".replace("= <", "<")
    return f"{row.name} ({change(metric, difference)}{sure})"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{shown(seconds, 3)} s"
    return f"{shown(seconds / 60, 3)} min" if seconds < 7200 else f"{shown(seconds / 3600, 3)} h"


def size(num_bytes: float) -> str:
    if num_bytes <= 0:
        return "0 B"
    power = min(int(math.log(num_bytes, 1024)), 4)
    return f"{shown(num_bytes / 1024**power, 3)} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def better(question: Question) -> str:
    return "higher is better" if question.larger_is_better else "lower is better"
