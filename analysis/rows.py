"""From runs to rows: what each candidate reached, and at what cost."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis.question import Question
from analysis.runs import BROKEN, DIVERGED, REPEAT, UNTUNED, Run, Setting
from analysis.statistics import Difference, Estimate, estimate, median_time
from analysis.words import COSTS, is_share

NO_VALUE = "no value"

Key = tuple[str, str]  # unit and seed of a run


@dataclass(frozen=True)
class Hit:
    """What it cost to reach a value on validation for the first time.

    Attributes:
        steps, seconds: medians over all runs; infinite if half of them or more missed it.
    """

    target: float
    num_reached: int
    steps: float
    seconds: float


@dataclass
class Row:
    """One candidate: its runs at the best setting of every replicate, or of all runs."""

    name: str
    settings: list[Setting]  # the best of every replicate
    runs: list[Run]  # one finished run per seed
    diverged: list[Run]  # at those settings; they count with the worst value
    num_replaced: int  # runs superseded by a later one with the same seed and setting
    without_value: list[Run]  # ended, but without a value to compare
    statuses: Counter[str]  # of all its runs, at any setting
    num_settings: int
    is_chosen: bool  # whether settings were selected on the reported runs
    is_untuned: bool  # whether it has a study's default settings
    validation: Estimate | None
    value: Estimate | None  # on the metric that candidates are compared on
    scores: dict[Key, float]  # ``value`` is the mean over their units
    cost: dict[str, Estimate] = field(default_factory=dict)  # those recorded by its runs
    hits: list[Hit] = field(default_factory=list)  # one per target, easiest first
    # the first row that is detectably better, else the first other; the next two refer to it
    rival: str = ""
    difference: Difference | None = None
    wins: Estimate | None = None  # how often its run beats the rival's
    to_best: Estimate | None = None  # its mean minus the best other's
    verdict: str = NO_VALUE

    @property
    def num_runs(self) -> int:
        return len(self.runs) + len(self.diverged)

    @property
    def num_units(self) -> int:
        return len({unit for unit, _ in self.scores})


def rows_of(runs: Sequence[Run], question: Question, phases: set[str]) -> list[Row]:
    """A row per candidate, from its runs of the given phases."""
    by_candidate: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_candidate[run.candidate].append(run)
    return [row_of(name, group, question, phases) for name, group in by_candidate.items()]


def row_of(name: str, runs: Sequence[Run], question: Question, phases: set[str]) -> Row:
    used = [run for run in runs if run.phase in phases]
    replicates = sorted({run.replicate for run in used}, key=lambda r: -1 if r is None else r)
    # every replicate selects its own setting, unless the reported runs are the trials
    groups = (
        [[run for run in used if run.replicate == r] for r in replicates]
        if REPEAT in phases
        else [used]
    )
    best = [best_setting(group, question) for group in groups if group]
    ended = [
        run for _, at_best in best for run in at_best if run.finished or run.status == DIVERGED
    ]
    counted = [run for run in ended if None not in (run.validation, question.value_of(run))]
    last = list({(run.unit, run.seed): run for run in counted}.values())
    finished = [run for run in last if run.finished]
    scores = {(run.unit, run.seed): question.value_of(run) or 0.0 for run in last}
    validation = {(run.unit, run.seed): run.validation or 0.0 for run in last}
    return Row(
        name=name,
        settings=[setting for setting, _ in best],
        runs=finished,
        diverged=[run for run in last if run.status == DIVERGED],
        num_replaced=len(counted) - len(last),
        without_value=[run for run in ended if run not in counted],
        statuses=Counter(run.status for run in runs),
        num_settings=len(
            {(run.replicate, run.setting) for run in runs if run.phase not in (REPEAT, UNTUNED)}
        ),
        is_chosen=any(len({run.setting for run in group}) > 1 for group in groups),
        is_untuned=all(run.phase == UNTUNED for run in runs),
        validation=over_units(validation, question.validation) if finished else None,
        value=over_units(scores, question.decides) if finished else None,
        scores=scores if finished else {},
    )


def best_setting(runs: Sequence[Run], question: Question) -> tuple[Setting, list[Run]]:
    """The setting with the best mean on validation, and its runs."""
    settings: dict[Setting, list[Run]] = defaultdict(list)
    for run in runs:
        settings[run.setting].append(run)
    return max(settings.items(), key=lambda item: merit(item[1], question))


def over_units(values: Mapping[Key, float], metric: str) -> Estimate:
    """Estimate from the means of the units, clipped to the values that the metric can have."""
    possible = (0.0, 1.0) if is_share(metric) else (-math.inf, math.inf)
    return estimate(list(unit_means(values).values()), *possible)


def unit_means(values: Mapping[Key, float]) -> dict[str, float]:
    scores = pd.Series(list(values.values()), dtype=float)
    by_unit = scores.groupby([unit for unit, _ in values], sort=False).mean()
    return {str(unit): float(value) for unit, value in by_unit.items()}


def merit(runs: Sequence[Run], question: Question) -> tuple[bool, int, bool, float]:
    """Sort key of a setting: few broken runs, run to the end, then the mean on validation."""
    finished = [run for run in runs if run.finished]
    known = [run.validation for run in finished if run.validation is not None]
    broken = sum(run.status in BROKEN for run in runs)
    is_full = not any(run.is_partial for run in finished)
    return bool(finished), -broken, is_full, question.key(float(np.mean(known)) if known else None)


def add_costs(row: Row, question: Question, targets: Sequence[float]) -> None:
    """Add the costs of the runs, and the cost of reaching each target."""
    for name in COSTS:
        costs = [cost for run in row.runs if (cost := cost_of(run, name)) is not None]
        if costs:
            row.cost[name] = estimate(costs, least=0.0)
    for target in targets:
        steps, seconds = [], []
        for run in row.runs:
            points = run.points(question.validation)
            good = points[question.key(1.0) * points[:, 2] >= question.key(target)]
            steps += good[:1, 0].tolist()
            seconds += good[:1, 1].tolist()
        medians = (median_time(times, row.num_runs or 1) for times in (steps, seconds))
        row.hits.append(Hit(target, len(steps), *medians))


def cost_of(run: Run, name: str) -> float | None:
    if name != "state_bytes_per_parameter":
        return run.number(name)
    state, parameters = run.number("optimizer_state_bytes"), run.number("num_parameters")
    return state / parameters if state is not None and parameters else None
