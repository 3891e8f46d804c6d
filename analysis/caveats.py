"""Where a comparison is not like for like, or says less than it seems to."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from analysis.comparison import Comparison, Row, without_test
from analysis.provenance import FACTS
from analysis.runs import Run
from analysis.statistics import WELCH
from analysis.tuning import at_the_edge, swept_keys, trials_of
from analysis.wording import listed, shown, words

UNEVEN = 1.5  # times the fastest
FEW_SEEDS = 5  # of four, a t-interval reaches 1.6 standard deviations of a run to either side


def caveats(comparison: Comparison) -> list[str]:
    """Sentences a reader must see beside the table; none if there is nothing to say."""
    return [
        *seeds(comparison.rows),
        *left_out(comparison),
        *differing(comparison.rows),
        *unpaired(comparison.used),
        *source(comparison.used),
        *busy(comparison.rows),
        *budgets(comparison),
        *selection(comparison),
    ]


def seeds(rows: Sequence[Row]) -> Iterator[str]:
    counts = {row.name: len(row.runs) for row in rows if row.runs}
    least = min(counts.values())
    if least == 1:
        names = [name for name, count in counts.items() if count == 1]
        yield f"One seed only for {listed(names)}: no interval, and no claim about a difference."
    elif least < FEW_SEEDS:
        yield (
            f"{least} seeds: intervals are wide, and only large differences can be detected. "
            f"{FEW_SEEDS} or more make a claim firmer."
        )
    if len(set(counts.values())) > 1:
        yield f"Unequal numbers of seeds, from {least} to {max(counts.values())}."
    if repeated := [row.name for row in rows if row.num_replaced]:
        yield f"Of runs with the same seed and settings the last one counts: {listed(repeated)}."
    if early := [row.name for row in rows if any(run.ended_early for run in row.runs)]:
        yield f"Values of runs that ended before their horizon: {listed(early)}."


def left_out(comparison: Comparison) -> Iterator[str]:
    question, runs = comparison.question, comparison.runs
    for row in comparison.rows:
        if row.without_value:
            lacks_validation = any(run.validation is None for run in row.without_value)
            metric = question.validation if lacks_validation else question.decides
            names = listed([run.name for run in row.without_value])
            yield f"Left out of {row.name}, for {metric} is missing or no number: {names}."
    statuses: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        if not run.finished and run.status != "pruned":
            statuses[run.status].append(run.candidate)
    if statuses:
        ends = ", ".join(
            f"{len(names)} {status} ({listed(list(dict.fromkeys(names)))})"
            for status, names in statuses.items()
        )
        yield f"Of {len(runs)} runs, {ends}: they are counted, and have no value in the table."
    if damaged := sum(run.damaged_lines for run in runs):
        yield f"{damaged} damaged lines in metrics.jsonl were passed over."
    if unknown := [run.name for run in runs if not run.config]:
        yield f"Runs without a readable config, so of no known candidate: {listed(unknown)}."


def differing(rows: Sequence[Row]) -> Iterator[str]:
    """What must be alike for values and costs to be comparable."""
    for name, fact in FACTS.items():
        found: dict[str, dict[str, None]] = defaultdict(dict)  # candidates by value, in order
        for row in rows:
            for run in row.runs:
                if name != "model" and (value := fact(run)) is not None:
                    found[str(value)][row.name] = None
        if len(found) > 1:
            values = "; ".join(f"{value} ({listed(list(who))})" for value, who in found.items())
            yield f"Not the same {name}: {values}."


def unpaired(runs: Sequence[Run]) -> Iterator[str]:
    """The same seed must mean the same samples in the same order, and the same initial weights."""
    orders: dict[Any, set[str]] = defaultdict(set)
    weights: dict[Any, set[str]] = defaultdict(set)
    for run in runs:
        summary = run.summary
        # a hash follows the samples consumed: only runs of the same length can agree
        if order := summary.get("data_order_hash"):
            consumed = str(summary.get("steps")), str(summary.get("skipped_steps"))
            orders[run.seed, *consumed].add(str(order))
        if weight := summary.get("initial_weights_hash"):
            weights[run.seed, str(run.config.get("model"))].add(str(weight))
    for found, what in ((orders, "order of samples"), (weights, "initial weights")):
        if broken := sorted({str(key[0]) for key, hashes in found.items() if len(hashes) > 1}):
            yield f"Not the same {what} for the same seed ({listed(broken)}): not paired."


def source(runs: Sequence[Run]) -> Iterator[str]:
    if dirty := sum(bool(run.summary.get("git_dirty")) for run in runs):
        yield f"{dirty} of {len(runs)} runs had uncommitted changes: their code is not on record."
    if synthetic := sum(bool(run.summary.get("synthetic_data")) for run in runs):
        yield f"{synthetic} of {len(runs)} runs used synthetic data."


def busy(rows: Sequence[Row]) -> Iterator[str]:
    """The same model and batch take the same time outside of the optimizer, on an even machine."""
    times: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        if {"step_ms", "optimizer_step_ms"} <= set(row.cost):
            outside = row.cost["step_ms"].mean - row.cost["optimizer_step_ms"].mean
            times[work(row.runs[0])][row.name] = outside
    for found in times.values():
        fast, slow = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
        if found[slow] > UNEVEN * found[fast] > 0:
            yield (
                f"Outside of the optimizer a step took {shown(found[fast], 3)} ms for {fast} and "
                f"{shown(found[slow], 3)} ms for {slow}, which do the same there: the machine was "
                "not equally busy, so seconds and milliseconds do not compare; steps do."
            )


def work(run: Run) -> str:
    """What a step costs apart from its optimizer."""
    parts = [run.config.get(group) for group in ("model", "data", "objective")]
    return json.dumps([*parts, run.summary.get("precision"), run.summary.get("world_size")])


def budgets(comparison: Comparison) -> Iterator[str]:
    trials = trials_of(comparison.runs, comparison.question)
    counts = dict.fromkeys(sorted({run.family for run in comparison.runs}), 1)
    counts |= trials["family"].value_counts()
    if len(set(counts.values())) > 1:
        tried = ", ".join(f"{family} {count}" for family, count in counts.items())
        yield f"Unequal budgets, in settings tried: {tried}."
    for key in swept_keys(trials):
        for family, of_family in trials.groupby("family", sort=False):
            if edge := at_the_edge(of_family, key, comparison.question):
                what = f"The best {words(key)} of {family}"
                yield f"{what} is the {edge} tried: a better may lie beyond."


def selection(comparison: Comparison) -> Iterator[str]:
    question, rows = comparison.question, comparison.rows
    if any(row.is_chosen for row in rows):
        yield (
            "Settings were chosen on the runs that are reported, so their validation values are "
            "optimistic; fresh seeds would not be."
        )
    if question.test and not question.is_tested:
        yield (
            f"No run of {listed(without_test(rows))} has {question.test}: candidates are "
            f"compared on {question.validation} itself."
        )
    if any(row.versus_best and row.versus_best.test == WELCH for row in rows):
        yield "Some candidates share too few seeds with the best: tested unpaired (Welch's t)."
