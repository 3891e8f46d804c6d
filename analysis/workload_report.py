"""The report over several workloads: its sentences, table and figures."""

import os
import shlex
from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd

from analysis.claims import template
from analysis.comparison import BEST, LEAST_UNITS, MAY_BE_BEST, WORSE
from analysis.page import Document
from analysis.plot import Figure, Palette
from analysis.provenance import facts
from analysis.sweep import Sweep
from analysis.tables import spread
from analysis.words import listed
from analysis.workload_figures import cell, heat_map, profiles, rank_forest
from analysis.workloads import by_mean, first_of, mean_ranks, rank_table, workloads_of

FEW = 2  # workloads that a sentence lists; more are counted


class WorkloadsReport(Document):
    """The report over several workloads.

    Args:
        sweeps: by workload.
        metric, mode: to compare all on; None: those that each study monitors.

    Raises:
        ReportError: if a workload cannot be compared.
    """

    page_template = "workloads.html"

    def __init__(
        self, sweeps: dict[str, Sweep], folder: str, metric: str | None, mode: str | None
    ) -> None:
        self.workloads = workloads_of(sweeps, metric, mode)
        self.parts = [workload.report for workload in self.workloads]
        self.names, num = self.workloads[0].names, len(self.parts)
        num_runs = sum(len(part.sweep.runs) for part in self.parts)
        self.title = f"{folder}: {num} workloads, {len(self.names)} candidates, {num_runs} runs"
        self.ranks = rank_table(self.workloads)
        self.mean_ranks = mean_ranks([workload.ranks for workload in self.workloads])
        self.rank_texts = [
            f"{rank.mean:.2f}" + ("" if rank.low is None else f" [{rank.low:.2f}, {rank.high:.2f}]")
            for rank in self.mean_ranks
        ]
        self.claims = [*self.verdicts(), *self.order()]
        self.caveats = [*self.limits(), *self.of_parts()]
        self.tables, self.frame = [self.table()], self.numbers()
        context = {"report": self, "facts": [facts(part.comparison.used) for part in self.parts]}
        self.notes, self.methods = (
            " ".join(template("workloads.txt").render(context, is_methods=is_methods).split())
            for is_methods in (False, True)
        )
        rows = [row for part in self.parts for row in part.comparison.rows]
        self.palette = Palette([*self.names, *(row.name for row in rows)])

    def on(self, i: int) -> dict[str, list[str]]:
        """The workloads by the verdict there on candidate ``i``."""
        found: dict[str, list[str]] = defaultdict(list)
        for workload in self.workloads:
            verdict = workload.rows[i].verdict
            found[MAY_BE_BEST if verdict == BEST else verdict].append(workload.name)
        return found

    def verdicts(self) -> list[str]:
        """On which workloads each candidate may be the best, and on which it is worse."""
        num = len(self.workloads)
        everywhere, others = [], []
        for i, name in enumerate(self.names):
            found = self.on(i)
            best, worse = found.pop(MAY_BE_BEST, []), found.pop(WORSE, [])
            if len(best) == num:
                everywhere.append(name)
                continue
            said = [f"may be the best on {len(best)} of {num}"] * bool(best)
            if worse:
                where = listed(worse) if len(worse) <= FEW else f"{len(worse)} of {num}"
                said.append(f"is detectably worse on {where}")
            said += [f"cannot be judged on {listed(rest)}" for rest in found.values()]
            others.append(f"{name} {listed(said)}")
        every = "both workloads" if num == 2 else f"all {num} workloads"
        who = listed(everywhere) or "No candidate"
        return [f"{who} may be the best on {every}.", *[f"{'; '.join(others)}."] * bool(others)]

    def order(self) -> list[str]:
        """The order by mean rank, and whether it depends on a single workload."""
        first = first_of(self.ranks)
        left = {name: self.ranks.drop(columns=name) for name in self.ranks}
        sentences = [
            f"Lowest mean rank: {listed(first)}, {self.rank_texts[0]} of {len(self.names)}."
        ]
        sentences += [
            f"Without {name}: {listed(found)}."
            for name, ranks in left.items()
            if (found := first_of(ranks)) != first
        ]
        if len(sentences) == 1:
            stay = "stays" if len(first) == 1 else "stay"
            sentences.append(f"{listed(first)} {stay} first whichever workload is left out.")
        if moved := [name for name, ranks in left.items() if by_mean(ranks) != self.names]:
            any_of = "any one of " * (len(moved) > 1)
            sentences.append(f"The order changes if {any_of}{listed(moved)} is left out.")
        scope = (
            f"This holds for these {len(left)} workloads, which are not a random sample of tasks; "
            "ranks do not show how large a difference is."
        )
        return [" ".join(sentences), scope]

    def limits(self) -> list[str]:
        """Caveats about ranks and verdicts over these workloads."""
        rows = [row for part in self.parts for row in part.comparison.rows]
        found = {
            "Not run on all workloads, so left out here:": {row.name for row in rows}
            - {*self.names},
            f"No intervals of mean ranks: the candidates share fewer than {LEAST_UNITS} replicates "
            "or seeds on": [w.name for w in self.workloads if len(w.ranks) < LEAST_UNITS],
            "No candidate's median run reaches the target on": [
                w.name for w in self.workloads if not np.isfinite(w.slowdown).any()
            ],
            "Tuned only once, so verdicts hold for settings, not candidates, on": [
                w.name for w in self.workloads if not w.comparison.is_replicated
            ],
        }
        return [f"{said} {listed(sorted(names))}." for said, names in found.items() if names]

    def of_parts(self) -> list[str]:
        """Caveats about the verdicts on single workloads; shared ones are stated once."""
        found: dict[str, list[str]] = defaultdict(list)
        for part in self.parts:
            for said in (*part.doubts, *part.caveats):
                found[said].append(part.title)
        return [f"On {listed(names)}: {said}" for said, names in found.items()]

    def table(self) -> pd.DataFrame:
        num = range(len(self.names))
        columns = {
            workload.heading: [", ".join(cell(workload, i)) for i in num]
            for workload in self.workloads
        }
        counts = [f"{len(self.on(i)[MAY_BE_BEST])} of {len(self.workloads)}" for i in num]
        last = {"may be best on": counts, "mean rank": self.rank_texts}
        return pd.DataFrame({"candidate": self.names, **columns, **last})

    def numbers(self) -> pd.DataFrame:
        """A row for each workload and candidate."""
        return pd.DataFrame(
            {
                "workload": workload.name,
                "candidate": row.name,
                "n": row.num_units,
                "unit": workload.comparison.unit,
                "metric": workload.comparison.question.decides,
                **spread("value", row.value),
                "verdict": row.verdict,
                "mean_rank": self.ranks.loc[row.name, workload.name],
                "standard_deviations_behind": workload.behind[i],
                "target": workload.comparison.target,
                "updates_of_fastest": workload.slowdown[i],
            }
            for workload in self.workloads
            for i, row in enumerate(workload.rows)
        )

    def figures(self) -> dict[str, list[Figure]]:
        ranks = rank_forest(self.ranks, self.mean_ranks, self.rank_texts)
        return {"result": [heat_map(self.workloads), *profiles(self.workloads), ranks]}

    def details(self) -> dict[str, Any]:
        folders = [os.path.relpath(part.sweep.studies[0].directory) for part in self.parts]
        return {"commands": [f"python report.py {shlex.quote(folder)}" for folder in folders]}
