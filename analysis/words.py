"""Format numbers, metrics and settings for readers, with meaningful digits only."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from analysis.statistics import Difference, Estimate

MINUS = "\N{MINUS SIGN}"
WORDS = {
    "val": "validation",
    "train": "training",
    "train_eval": "training subset",
    "lr": "learning rate",
    "fid": "FID",
}


def is_share(metric: str) -> bool:
    """Whether a metric lies between 0 and 1 and is shown in percent."""
    return metric.endswith("accuracy")


def words(metric: str) -> str:
    """A metric's name in plain words: ``test/accuracy`` is "test accuracy"."""
    parts = metric.removeprefix("optim/").split("/")
    return " ".join(WORDS.get(part, part.replace("_", " ")) for part in parts)


def label(values: Iterable[tuple[str, Any]]) -> str:
    """Choices by name, other keys as overrides: ``sgd_cosine, trainer.precision=bf16``."""
    parts = []
    for key, value in values:
        text = f"{value:g}" if isinstance(value, float) else str(value)
        is_choice = isinstance(value, str | bool) and "." not in key
        parts.append(text if is_choice else f"{key}={text}")
    return ", ".join(parts)


def listed(names: Sequence[str], separator: str = ", ", most: int = 6) -> str:
    """Join names: ``a, b and c``, or ``a, b and 7 more`` beyond ``most``."""
    if len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return " and ".join(part for part in (separator.join(names[:-1]), *names[-1:]) if part)


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
    """Shares as percentages, everything else with four significant digits."""
    return f"{value:.2%}" if is_share(metric) else shown(value)


def intervals(metric: str, estimates: Sequence[Estimate | None]) -> list[str]:
    """A column of means with the half-widths of their intervals: ``97.10% ± 0.60``.

    A clipped interval is asymmetric. If there is one, the whole column shows both ends:
    ``99.10% [97.40, 100.00]``.
    """
    in_brackets = any(estimate.is_cut for estimate in estimates if estimate)
    error = bounds if in_brackets else half
    return [
        f"{metric_value(metric, estimate.mean)}{error(metric, estimate)}" if estimate else "–"
        for estimate in estimates
    ]


def interval(metric: str, estimate: Estimate) -> str:
    """One mean with its interval."""
    return intervals(metric, [estimate])[0]


def half(metric: str, around: Estimate) -> str:
    """The half-width as `` ± 0.60``; empty without an interval."""
    if around.high is None:
        return ""
    width = around.high - around.mean
    return f" ± {100 * width:.2f}" if is_share(metric) else f" ± {shown(width, 2)}"


def bounds(metric: str, around: Estimate) -> str:
    """Both ends as `` [97.40, 100.00]``; empty without an interval."""
    if around.low is None or around.high is None:
        return ""
    if is_share(metric):
        return f" [{100 * around.low:.2f}, {100 * around.high:.2f}]".replace("-", MINUS)
    return f" [{shown(around.low)}, {shown(around.high)}]"


def change(metric: str, difference: Difference) -> str:
    """A signed difference: ``−1.13 ± 0.90 pp``. Shares are in percentage points."""
    unit = " pp" if is_share(metric) else ""
    return f"{signed(metric, difference.mean)}{half(metric, difference)}{unit}"


def signed(metric: str, value: float) -> str:
    """A signed number: ``+0.20``. Shares are in percentage points."""
    text = f"{100 * value:+.2f}" if is_share(metric) else ("+" * (value > 0)) + shown(value, 3)
    return text.replace("-", MINUS)


def p_value(p: float | None) -> str:
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{shown(seconds, 3)} s"
    return f"{shown(seconds / 60, 3)} min" if seconds < 7200 else f"{shown(seconds / 3600, 3)} h"


def size(num_bytes: float) -> str:
    power = min(int(math.log(num_bytes, 1024)), 4) if num_bytes else 0
    return f"{shown(num_bytes / 1024**power, 3)} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


three_digits = partial(shown, digits=3)
COSTS: dict[str, tuple[str, Callable[[float], str]]] = {  # heading and format, by name
    "train_seconds": ("training time", duration),
    "step_ms": ("step (ms)", three_digits),
    "optimizer_step_ms": ("optimizer step (ms)", three_digits),
    "state_bytes_per_parameter": ("optimizer state (B/param)", three_digits),
    "peak_memory_bytes": ("peak memory", size),
}
