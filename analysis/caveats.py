"""Where a comparison is not like for like, or says less than it seems to."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from analysis.comparison import Comparison, Row, without_test
from analysis.question import Question, twin
from analysis.runs import Run, nested
from analysis.statistics import WELCH
from analysis.tuning import at_the_edge, swept_keys, trials_by_family
from analysis.wording import names_of, shown, words

UNEVEN = 1.5  # times the fastest
FEW_SEEDS = 5  # of four, a t-interval reaches 1.6 standard deviations of a run to either side

# what must be alike for values and costs to be comparable
ALIKE: dict[str, Callable[[Run], Any]] = {
    "data": lambda run: run.summary.get("data"),
    "split sizes": lambda run: in_order(run.summary.get("num_samples")),
    "batch size": lambda run: run.summary.get("batch_size"),
    "precision": lambda run: run.summary.get("precision"),
    "device": lambda run: run.summary.get("device"),
    "hardware": lambda run: run.summary.get("hardware"),
    "number of processes": lambda run: run.summary.get("world_size"),
    "number of threads": lambda run: run.summary.get("num_threads"),
    "length": lambda run: length(run),
    "versions": lambda run: in_order(run.summary.get("versions")),
    "commit": lambda run: str(run.summary.get("git_commit") or "")[:9] or None,
}


def caveats(comparison: Comparison) -> list[str]:
    """Sentences a reader must see beside the table; none if there is nothing to say."""
    used = [run for row in comparison.rows for run in row.runs]
    return [
        *seeds(comparison),
        *left_out(comparison),
        *early(comparison.rows),
        *differing(comparison.rows),
        *unpaired(used),
        *source(used),
        *busy(comparison.rows),
        *budgets(comparison),
        *selection(comparison),
    ]


def seeds(comparison: Comparison) -> Iterator[str]:
    counts = {row.name: len(row.runs) for row in comparison.rows if row.runs}
    least = min(counts.values())
    if least == 1:
        names = ", ".join(name for name, count in counts.items() if count == 1)
        yield f"One seed only for {names}: no interval, and no claim about a difference."
    elif least < FEW_SEEDS:
        yield (
            f"{least} seeds: intervals are wide, and only large differences can be detected. "
            f"{FEW_SEEDS} or more make a claim firmer."
        )
    if len(set(counts.values())) > 1:
        yield f"Unequal numbers of seeds, from {least} to {max(counts.values())}."
    if repeated := [row.name for row in comparison.rows if row.num_replaced]:
        yield f"Of runs with the same seed and settings the last one counts: {names_of(repeated)}."


def left_out(comparison: Comparison) -> Iterator[str]:
    runs = [member.run for member in comparison.members]
    for row in comparison.rows:
        if row.without_value:
            names = names_of([run.name for run in row.without_value])
            metric = missing(row.without_value, comparison.question)
            yield f"Left out of {row.name}, for {metric} is missing or no number: {names}."
    statuses: dict[str, list[str]] = defaultdict(list)
    for member in comparison.members:
        if not member.run.finished and member.run.status != "pruned":
            statuses[member.run.status].append(member.candidate)
    if statuses:
        shown = ", ".join(
            f"{len(names)} {status} ({names_of(list(dict.fromkeys(names)))})"
            for status, names in statuses.items()
        )
        yield f"Of {len(runs)} runs, {shown}: they are counted, and have no value in the table."
    damaged = sum(run.damaged_lines for run in runs)
    if damaged:
        yield f"{damaged} damaged lines in metrics.jsonl were passed over."
    unknown = [run.name for run in runs if not run.config]
    if unknown:
        yield f"Runs without a readable config, so of no known candidate: {names_of(unknown)}."


def early(rows: Sequence[Row]) -> Iterator[str]:
    names = [row.name for row in rows if any(run.is_partial for run in row.runs)]
    if names:
        yield f"Values of runs that ended before their horizon: {names_of(names)}."


def differing(rows: Sequence[Row]) -> Iterator[str]:
    for name, value_of in ALIKE.items():
        found: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            for run in row.runs:
                value = value_of(run)
                if value is not None and row.name not in found[str(value)]:
                    found[str(value)].append(row.name)
        if len(found) > 1:
            shown = "; ".join(f"{value} ({names_of(names)})" for value, names in found.items())
            yield f"Not the same {name}: {shown}."


def unpaired(runs: Sequence[Run]) -> Iterator[str]:
    """The same seed must mean the same samples in the same order, and the same initial weights."""
    orders: dict[Any, set[str]] = defaultdict(set)
    weights: dict[Any, set[str]] = defaultdict(set)
    for run in runs:
        summary = run.summary
        model = str(run.config.get("model"))
        # a hash follows the samples consumed: only runs of the same length can agree
        if order := summary.get("data_order_hash"):
            consumed = str(summary.get("steps")), str(summary.get("skipped_steps"))
            orders[run.seed, *consumed].add(str(order))
        if weight := summary.get("initial_weights_hash"):
            weights[run.seed, model].add(str(weight))
    for found, what in ((orders, "order of samples"), (weights, "initial weights")):
        broken = sorted({str(key[0]) for key, hashes in found.items() if len(hashes) > 1})
        if broken:
            yield f"Not the same {what} for the same seed ({names_of(broken)}): not paired."


def source(runs: Sequence[Run]) -> Iterator[str]:
    dirty = sum(bool(run.summary.get("git_dirty")) for run in runs)
    if dirty:
        yield f"{dirty} of {len(runs)} runs had uncommitted changes: their code is not on record."
    synthetic = sum(bool(run.summary.get("synthetic_data")) for run in runs)
    if synthetic:
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
    trials = trials_by_family(comparison.members, comparison.question)
    families = {member.family for member in comparison.members}
    counts = {family: len(trials.get(family, [None])) for family in sorted(families)}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{family} {count}" for family, count in counts.items())
        yield f"Unequal budgets, in settings tried: {shown}."
    for key in swept_keys(trials):
        for family, group in trials.items():
            if edge := at_the_edge(group, key, comparison.question):
                what = f"The best {words(key)} of {family}"
                yield f"{what} is the {edge} tried: a better may lie beyond."


def selection(comparison: Comparison) -> Iterator[str]:
    question = comparison.question
    if any(row.is_chosen for row in comparison.rows):
        yield (
            "Settings were chosen on the runs that are reported, so their validation values are "
            "optimistic; fresh seeds would not be."
        )
    if question.test is None and (test := twin(question.validation)):
        yield (
            f"No run of {names_of(without_test(comparison.rows, test))} has {test}: candidates are "
            f"compared on {question.validation} itself."
        )
    if any(row.versus_best and row.versus_best.test == WELCH for row in comparison.rows):
        yield "Some candidates share too few seeds with the best: tested unpaired (Welch's t)."


def length(run: Run) -> str | None:
    """What the run was given, not what it used: an early stop is a result."""
    if steps := nested(run.config, "trainer", "max_steps"):
        return f"{steps} steps"
    epochs = nested(run.config, "trainer", "max_epochs")
    if limit := nested(run.config, "trainer", "limit_train_steps"):
        return f"{limit} steps of a horizon of {run.summary.get('horizon_steps')}"
    return f"{epochs} epochs" if epochs else None


def in_order(mapping: Any) -> str | None:
    if not isinstance(mapping, dict):
        return None
    return ", ".join(f"{key} {value}" for key, value in sorted(mapping.items()))


def missing(runs: Sequence[Run], question: Question) -> str:
    """The metric that stopped them from counting."""
    lacks_validation = any(question.validation_of(run) is None for run in runs)
    return question.validation if lacks_validation else question.decides
