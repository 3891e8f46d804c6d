"""What a comparison shows, in sentences; templates say how to read the table, and the methods."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from analysis.comparison import BEST, NO_DIFFERENCE, UNTESTED, WORSE, Comparison, Row
from analysis.provenance import counted, facts
from analysis.study import Study
from analysis.words import bounds, change, interval, listed, metric_value, p_value, words

OPENINGS = {
    NO_DIFFERENCE: "No detectable difference from it",
    WORSE: "Detectably worse",
    UNTESTED: "Too few seeds to tell the difference from chance",
}
SAMPLERS = {"tpe": "TPE", "sobol": "Sobol", "halton": "Halton"}


def claims(comparison: Comparison) -> list[str]:
    """The outcome, with everything that a reader needs to weigh it."""
    question, (best, *others) = comparison.question, comparison.rows
    metric = question.decides
    if not others:
        mean = "mean " * (len(best.runs) > 1)
        return [f"The {mean}{words(metric)} of {with_fate(best)} is {in_words(metric, best)}."]
    kind = "is the best in" if best.verdict == BEST else f"has the {question.first_mean}"
    sentences = [f"{best.name} {kind} {words(metric)}: {in_words(metric, best)}."]
    for verdict, opening in OPENINGS.items():
        if names := [with_p(row, metric) for row in others if row.verdict == verdict]:
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
    if empty := [row.name for row in others if row.value is None]:
        sentences.append(f"Without a finished run: {listed(empty, '; ')}.")
    return sentences


def with_fate(row: Row) -> str:
    """``adamw (5 of 8 seeds diverged)``, or the name alone."""
    if not row.num_diverged:
        return row.name
    return f"{row.name} ({row.num_diverged} of {row.num_seeds} seeds diverged)"


def in_words(metric: str, row: Row) -> str:
    """A candidate's value with its interval, or why it has none."""
    value = row.value
    assert value is not None  # the first of a comparison has one
    mean = metric_value(metric, value.mean)
    if value.low is None:
        why = "one seed" if value.n == 1 else f"{value.n} seeds, all alike"
        return f"{mean} ({why}: no interval)"
    return f"{mean}, 95 % interval{bounds(metric, value)}, n = {value.n}"


def with_p(row: Row, metric: str) -> str:
    """A candidate, how far it is from the best, and how sure that is."""
    difference = row.versus_best
    assert difference is not None  # it was compared with the best
    sure = ""
    if difference.adjusted_p is not None:
        sure = f", p = {p_value(difference.adjusted_p)}".replace("= <", "<")
    return f"{row.name} ({change(metric, difference)}{sure})"


def notes_and_methods(comparison: Comparison, studies: Sequence[Study]) -> tuple[str, str]:
    """How to read the table, and the protocol as a paragraph of methods."""
    question, runs, rows = comparison.question, comparison.used, comparison.rows
    estimates = [estimate for row in rows for estimate in (row.validation, row.value)]
    context = {
        "names": [row.name for row in rows],
        "facts": {name: "; ".join(values) for name, values in facts(runs).items()},
        "torch": "; ".join(counted(run.summary["versions"]["torch"] for run in runs)),
        "protocols": [study.protocol for study in studies],
        "samplers": SAMPLERS,
        "validation": words(question.validation),
        "decides": words(question.decides),
        "better": question.better,
        "num_settings": max(row.num_settings * row.is_chosen for row in rows),
        "run_seeds": sorted({run.seed for run in runs}, key=lambda seed: (len(seed), seed)),
        "is_tested": question.is_tested,
        "is_cut": any(estimate.is_cut for estimate in estimates if estimate),
        "tests": [f"{t}-tests" if t.endswith("t") else f"{t} tests" for t in comparison.tests],
        "num_diverged": sum(row.num_diverged for row in rows),
    }
    texts = [template(f"{name}.txt").render(context) for name in ("statistics", "methods")]
    statistics, methods = (" ".join(text.split()) for text in texts)
    target = metric_value(question.validation, comparison.target)
    return (
        f"{statistics} The target is a {words(question.validation)} of {target}; steps and time "
        "to it are means over the runs that reached it, evaluation excluded."
    ), methods


def template(name: str) -> Template:
    """A template of this folder; values are escaped in HTML and, by ``md``, in Markdown."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=name.endswith(".html"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"listed": listed, "seeds": seeds, "percent": percent, "md": in_markdown}
    return environment.get_template(name)


def seeds(numbers: Sequence[Any]) -> str:
    return f"seed{'s' * (len(numbers) != 1)} {listed([str(n) for n in numbers], most=12)}"


def percent(share: float) -> str:
    return f"{100 * share:g} %"


def in_markdown(text: str) -> str:
    return re.sub(r"([\\`*_|<])", r"\\\1", text).replace("\n", " ")
