"""Caveats: where a comparison is not like for like, or weaker than it looks."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from analysis.comparison import Comparison, without_test
from analysis.provenance import facts_of
from analysis.rows import Row
from analysis.runs import TUNE, UNREADABLE, Run, nested
from analysis.statistics import WELCH
from analysis.tuning import at_the_edge, swept_keys, trials_of
from analysis.words import listed, shown

UNEVEN = 1.5  # slowest over fastest time of the same work
KERNELS = ("fused", "foreach")
FEW_UNITS = 5  # with four, the half-width of a t-interval is 1.6 standard deviations


def caveats(comparison: Comparison) -> list[str]:
    """Sentences to print with the table; empty if there is nothing to warn about."""
    return [
        *units(comparison),
        *left_out(comparison),
        *differing(comparison.rows),
        *unpaired(comparison.used),
        *source(comparison.used),
        *busy(comparison.rows),
        *kernels(comparison.rows),
        *budgets(comparison),
        *selection(comparison),
    ]


def units(comparison: Comparison) -> Iterator[str]:
    rows, unit = comparison.rows, comparison.unit
    counts = {row.name: row.num_units for row in rows if row.scores}
    least = min(counts.values())
    if least == 1:
        names = [name for name, count in counts.items() if count == 1]
        yield f"Only one {unit} for {listed(names)}: no interval, and no claim about differences."
    elif least < FEW_UNITS:
        yield (
            f"Only {least} {unit}s, so intervals are wide and only large differences can be "
            f"detected: use {FEW_UNITS} or more."
        )
    if len(set(counts.values())) > 1:
        yield f"Unequal numbers of {unit}s, from {least} to {max(counts.values())}."
    if (
        comparison.is_replicated
        and len({row.num_runs // row.num_units for row in rows if row.scores}) > 1
    ):
        yield "Unequal numbers of seeds per replicate: a replicate is unfinished, or a run failed."
    if repeated := [row.name for row in rows if row.num_replaced]:
        yield f"Of repeated runs (same seed and settings), the last counts: {listed(repeated)}."
    if early := [row.name for row in rows if any(run.ended_early for run in row.runs)]:
        yield f"Runs that were configured to stop before their schedule ends: {listed(early)}."


def left_out(comparison: Comparison) -> Iterator[str]:
    question, runs = comparison.question, comparison.runs
    for row in comparison.rows:
        if row.without_value:
            lacks_validation = any(run.validation is None for run in row.without_value)
            metric = question.validation if lacks_validation else question.decides
            names = listed([run.name for run in row.without_value])
            yield f"Left out of {row.name} because {metric} is missing or not a number: {names}."
    ends: dict[str, list[str]] = defaultdict(list)  # candidates by status
    for run in runs:
        if not run.finished and run.status != "pruned":
            where = " in tuning" * (run.phase == TUNE)
            ends[f"{run.status}{where}"].append(run.candidate)
    if ends:
        counts = [
            f"{len(names)} {status} ({listed(list(dict.fromkeys(names)))})"
            for status, names in ends.items()
        ]
        yield f"Of {len(runs)} runs, {', '.join(counts)}: these have no value of their own."
    if broken := [run for run in runs if run.problems or run.status == UNREADABLE]:
        reasons = [f"{run.name} ({'; '.join(run.problems) or 'unexpected content'})"
                 for run in broken]  # fmt: skip
        yield f"Unreadable runs: {listed(reasons, most=20)}."
    if damaged := [f"{run.name} ({run.damaged_lines})" for run in runs if run.damaged_lines]:
        by_run = listed(damaged, most=20)
        yield f"Damaged lines skipped in metrics.jsonl, per run: {by_run}."


def differing(rows: Sequence[Row]) -> Iterator[str]:
    """Facts that must agree for values and costs to be comparable; models may differ."""
    names_by_value: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        for run in row.runs:
            for name, value in facts_of(run).items():
                names_by_value[name][value][row.name] = None  # an ordered set
    for name, values in names_by_value.items():
        if len(values) > 1 and name != "model":
            groups = [f"{value} ({listed(list(names))})" for value, names in values.items()]
            yield f"Runs differ in {name}: {'; '.join(groups)}."


def unpaired(runs: Sequence[Run]) -> Iterator[str]:
    """Runs of the same seed must have the same order of samples and initial weights."""
    orders: dict[Any, set[str]] = defaultdict(set)
    weights: dict[Any, set[str]] = defaultdict(set)
    for run in runs:
        summary = run.summary
        # the hash covers the samples consumed: only runs of the same length can agree
        orders[run.seed, summary["steps"], summary["skipped_steps"]].add(summary["data_order_hash"])
        weights[run.seed, str(run.config["model"])].add(summary["initial_weights_hash"])
    for by_key, what in ((orders, "order of samples"), (weights, "initial weights")):
        if seeds := sorted({key[0] for key, hashes in by_key.items() if len(hashes) > 1}):
            yield f"Runs of the same seed ({listed(seeds)}) differ in {what}: not truly paired."


def source(runs: Sequence[Run]) -> Iterator[str]:
    if dirty := sum(bool(run.summary["git_dirty"]) for run in runs):
        yield f"{dirty} of {len(runs)} runs had uncommitted changes: their code is not recorded."
    if partial := sum(is_measured_in_part(run.summary) for run in runs):
        yield f"{partial} of {len(runs)} runs were evaluated on only part of a split."
    if synthetic := sum(run.summary["synthetic_data"] for run in runs):
        yield f"{synthetic} of {len(runs)} runs used synthetic data."


def is_measured_in_part(summary: dict[str, Any]) -> bool:
    """Whether ``trainer.limit_eval_steps`` left samples of a split out."""
    evaluated = summary.get("num_evaluated", {})
    samples = summary["num_samples"]
    return any(count < samples.get(name, count) for name, count in evaluated.items())


def busy(rows: Sequence[Row]) -> Iterator[str]:
    """Warn if the same work outside the optimizer took unequal times: the load varied."""
    times: dict[str, dict[str, float]] = defaultdict(dict)  # by work of a step, then candidate
    for row in rows:
        if {"step_ms", "optimizer_step_ms"} <= set(row.cost):
            config, summary = row.runs[0].config, row.runs[0].summary
            work = [config["model"], config["data"], config["objective"]]
            work += [summary["precision"], summary["world_size"]]
            outside = row.cost["step_ms"].mean - row.cost["optimizer_step_ms"].mean
            times[json.dumps(work)][row.name] = outside
    for found in times.values():
        fast, slow = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
        if found[slow] > UNEVEN * found[fast] > 0:
            yield (
                f"Outside the optimizer, a step took {shown(found[fast], 3)} ms for {fast} and "
                f"{shown(found[slow], 3)} ms for {slow}, although the work is the same: the load "
                "of the machine varied, so compare updates, not times."
            )


def kernels(rows: Sequence[Row]) -> Iterator[str]:
    """Warn if only some optimizers use fused or foreach kernels, which are faster."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for row in rows:
        for run in row.runs[:1]:
            kinds = [kind for kind in KERNELS if nested(run.config, "optimizer", kind)]
            kind = kinds[0] if kinds else "plain"
            found[kind][row.name] = None
    if len(found) > 1:
        kinds = [f"{kind} ({listed(list(names))})" for kind, names in found.items()]
        yield (
            f"Optimizers differ in implementation, {listed(kinds, '; ')}: this affects their "
            "times as well."
        )


def budgets(comparison: Comparison) -> Iterator[str]:
    trials = trials_of(comparison.runs)
    counts = dict.fromkeys(sorted({run.family for run in comparison.runs}), 1)
    counts |= trials["family"].value_counts()
    if len(set(counts.values())) > 1:
        tried = ", ".join(f"{family} {count}" for family, count in counts.items())
        yield f"Unequal tuning budgets (settings tried): {tried}."
    if any(run.phase for run in comparison.runs):
        return  # a study itself reports settings at the bounds of its spaces
    for key in swept_keys(trials):
        for family, of_family in trials.groupby("family", sort=False):
            if edge := at_the_edge(of_family, key, comparison.question):
                where = f"the {edge} value tried: a better one may lie beyond it."
                yield f"The best {key} of {family} is {where}"


def selection(comparison: Comparison) -> Iterator[str]:
    question, rows = comparison.question, comparison.rows
    if any(row.is_chosen for row in rows):
        yield (
            "Settings were selected on the reported runs themselves, so their validation values "
            "are optimistic; runs with fresh seeds would not be."
        )
    if question.test and not question.is_tested:
        yield (
            f"No run of {listed(without_test(rows))} has {question.test}: candidates are "
            f"compared on {question.validation}."
        )
    if WELCH in comparison.tests:
        yield f"Some candidates share too few {comparison.unit}s to pair: Welch's t-test was used."
