"""How the runs of a comparison were made: data, model, length, hardware, source, versions."""

from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd

from analysis.comparison import Comparison
from analysis.runs import DIVERGED, Run
from analysis.words import label, listed, metric_value

SPLITS = {"train": "training", "val": "validation"}


def facts_of(run: Run) -> dict[str, str]:
    """How a finished run was made, in words."""
    summary, trainer = run.summary, run.config["trainer"]
    synthetic = " (synthetic)" if summary["synthetic_data"] else ""
    counts = [f"{n:,} {SPLITS.get(split, split)}" for split, n in summary["num_samples"].items()]
    # the configured length, not the one used: early stopping is a result
    if trainer["max_steps"]:
        length = f"{trainer['max_steps']} steps"
    elif trainer["limit_train_steps"]:
        limit, horizon = trainer["limit_train_steps"], summary["horizon_steps"]
        length = f"{limit} of {horizon} scheduled steps"
    else:
        length = f"{trainer['max_epochs']} epoch{'s' * (trainer['max_epochs'] != 1)}"
    processes, threads = summary["world_size"], summary["num_threads"]
    changed = " with uncommitted changes" if summary["git_dirty"] else ""
    return {
        "data": f"{summary['data']}{synthetic} ({listed(counts)} samples; "
        f"batch size {summary['batch_size']})",
        "model": f"{run.choices.get('model', summary['model'])} "
        f"({summary['num_parameters']:,} parameters)",
        "length": length,
        "hardware": f"{summary['device']} ({summary['hardware']}), "
        f"{processes} process{'es' * (processes != 1)}, {threads} thread{'s' * (threads != 1)}",
        "precision": summary["precision"],
        "commit": f"{(summary['git_commit'] or 'unknown')[:12]}{changed}",
        "versions": ", ".join(f"{name} {v}" for name, v in summary["versions"].items()),
    }


def facts(runs: Sequence[Run]) -> dict[str, list[str]]:
    """All values of each fact over the finished runs, with counts if there are several."""
    of_runs = [facts_of(run) for run in runs]
    return {name: counted(facts[name] for facts in of_runs) for name in of_runs[0]}


def counted(values: Iterable[str]) -> list[str]:
    found = Counter(values)
    if len(found) == 1:
        return list(found)
    return [f"{value} ({count} runs)" for value, count in found.most_common()]


def run_table(comparison: Comparison) -> pd.DataFrame:
    """One row of text per run, without the columns that are empty for all."""
    metric = comparison.question.validation
    rows = [
        {
            "run": run.name,
            "candidate": run.candidate,
            "setting": label(run.setting) if run.candidate == run.family else "",
            "phase": run.phase,
            "seed": run.seed,
            "status": run.status,
            metric: "" if validation is None else metric_value(metric, validation),
            "steps": str(run.summary.get("steps", "")),
            "initial weights": str(run.summary.get("initial_weights_hash", ""))[:8],
            "sample order": str(run.summary.get("data_order_hash", ""))[:8],
            "overrides": " ".join(run.overrides),
            "error": str(run.summary.get("error") or ""),
        }
        for run in comparison.runs
        # a diverged run has been given the worst value of the others
        for validation in [None if run.status == DIVERGED else run.validation]
    ]
    table = pd.DataFrame(rows)
    return table.loc[:, (table != "").any()]
