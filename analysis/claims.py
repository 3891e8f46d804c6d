"""The outcome of a comparison in sentences, and the templates of notes and methods."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from analysis.comparison import BEST, MAY_BE_BEST, UNTESTED, WORSE, Comparison, against
from analysis.provenance import counted, facts
from analysis.rows import Row
from analysis.statistics import ALPHA, Difference
from analysis.study import Study
from analysis.words import bounds, change, listed, metric_value, p_value, words

SAMPLERS = {"tpe": "TPE", "sobol": "Sobol", "halton": "Halton"}
UNCERTAIN = "no detectable difference"


def claims(comparison: Comparison) -> Iterator[str]:
    """The outcome in sentences, with what a reader needs to weigh it."""
    rows, metric = comparison.rows, comparison.question.decides
    first, *others = [row for row in rows if row.value]
    by_verdict: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_verdict[row.verdict].append(row)
    if not others:
        mean = "mean " * (len(first.runs) > 1)
        yield f"The {mean}{words(metric)} of {first.name} is {in_words(comparison, first)}."
    elif best := by_verdict[BEST]:
        yield f"{best[0].name} has the best {words(metric)}: {in_words(comparison, best[0])}."
    elif tied := by_verdict[MAY_BE_BEST]:
        leader, *near = tied
        names = [f"{leader.name} ({in_words(comparison, leader)})"]
        names += [to_rival(row, metric) for row in near]
        may_be = f"may have the best {words(metric)}"
        if near:
            yield f"Any of {len(names)} candidates {may_be}: {listed(names, '; ')}."
        else:
            yield f"{names[0]} {may_be}."
    if worse := by_verdict[WORSE]:
        names = [to_rival(row, metric) for row in worse]
        yield f"Detectably worse: {listed(names, '; ')}."
    if untested := by_verdict[UNTESTED]:
        names = [f"{row.name} ({in_words(comparison, row)})" for row in untested]
        yield f"Too few {comparison.unit}s to tell a difference from chance: {listed(names, '; ')}."
    if diverged := [row for row in rows if row.diverged and row.value]:
        counts = listed([f"{r.name} ({len(r.diverged)} of {r.num_runs})" for r in diverged], "; ")
        yield f"Diverged runs, counted with the worst value of any finished run: {counts}."
    if empty := [row.name for row in rows if row.value is None]:
        yield f"Candidates without a finished run: {listed(empty)}."
    if len(rows) > 1 and not comparison.is_replicated:
        yield (
            "This holds for these settings, not for the candidates in general: other settings, "
            "or a repeated search, may rank them differently."
        )


def claims_against(comparison: Comparison, baseline: str) -> str:
    """One sentence on which candidates are better or worse than a baseline."""
    question = comparison.question
    pairs = against(comparison.rows, baseline)
    groups: dict[str, list[str]] = {kind: [] for kind in ("better", "worse", UNCERTAIN)}
    for row, difference in pairs:
        p = difference.adjusted_p
        is_sure = p is not None and p < ALPHA
        kind = "better" if question.key(difference.mean) > 0 else "worse"
        change_of_mean = with_p(row, difference, question.decides)
        groups[kind if is_sure else UNCERTAIN].append(change_of_mean)
    outcome = "; ".join(f"{kind}: {listed(names)}" for kind, names in groups.items() if names)
    return (
        f"Against {baseline} only (p corrected for {len(pairs)} pair{'s' * (len(pairs) != 1)}, "
        "valid if this baseline was chosen before any result was seen): "
        f"{outcome or 'nothing to compare'}."
    )


def in_words(comparison: Comparison, row: Row) -> str:
    """A candidate's value with its interval, or why it has none."""
    value, metric = row.value, comparison.question.decides
    assert value is not None  # only candidates with a value are named
    mean = metric_value(metric, value.mean)
    if value.low is None:
        unit = comparison.unit
        why = f"only one {unit}" if value.n == 1 else f"{value.n} {unit}s with the same value"
        return f"{mean}, no interval: {why}"
    return f"{mean}{bounds(metric, value)}"


def to_rival(row: Row, metric: str) -> str:
    """A candidate with its difference from its rival and the p-value."""
    assert row.difference is not None  # set for every compared row
    return with_p(row, row.difference, metric, f" vs. {row.rival}")


def with_p(row: Row, difference: Difference, metric: str, other: str = "") -> str:
    """A candidate with its difference from another and the p-value."""
    p = difference.adjusted_p
    sure = "not tested" if p is None else f"p = {p_value(p)}".replace("= <", "<")
    return f"{row.name} ({change(metric, difference)}{other}, {sure})"


def notes_and_methods(comparison: Comparison, studies: Sequence[Study]) -> tuple[str, str]:
    """How to read the tables, and the methods paragraph of a paper."""
    question, runs, rows = comparison.question, comparison.used, comparison.rows
    estimates = [estimate for row in rows for estimate in (row.validation, row.value)]
    context = {
        "comparison": comparison,
        "names": [row.name for row in rows],
        "facts": {name: "; ".join(values) for name, values in facts(runs).items()},
        "torch": "; ".join(counted(str(run.summary["versions"].get("torch")) for run in runs)),
        "studies": studies,
        "samplers": SAMPLERS,
        "validation": words(question.validation),
        "decides": words(question.decides),
        "better": question.better,
        "num_settings": max(row.num_settings * row.is_chosen for row in rows),
        "run_seeds": sorted({run.seed for run in runs}, key=lambda seed: (len(seed), seed)),
        "is_tested": question.is_tested,
        "is_cut": any(estimate.is_cut for estimate in estimates if estimate),
        "tests": [f"{test} tests" for test in comparison.tests],
        "num_diverged": sum(len(row.diverged) for row in rows),
        "has_intervals": any(row.to_best and row.to_best.high is not None for row in rows),
    }
    return paragraph("statistics.txt", context), paragraph("methods.txt", context)


def paragraph(template: str, context: Mapping[str, object]) -> str:
    """A template of this folder as one line of text."""
    return " ".join(TEMPLATES.get_template(template).render(context).split())


def percent(share: float) -> str:
    return f"{100 * share:g} %"


def in_markdown(text: str) -> str:
    return re.sub(r"([\\`*_|<])", r"\\\1", text).replace("\n", " ")


# the templates of this folder; HTML is escaped by itself, and Markdown by the filter ``md``
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {"listed": listed, "words": words, "percent": percent, "md": in_markdown}
