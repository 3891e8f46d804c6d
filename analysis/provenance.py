"""How the runs of a comparison were made: data, model, length, hardware, source, versions."""

from collections import Counter
from collections.abc import Callable, Sequence

import pandas as pd

from analysis.candidates import label
from analysis.comparison import Comparison
from analysis.runs import Run, nested
from analysis.wording import listed, metric_value

SPLITS = {"train": "training", "val": "validation"}


def data_set(run: Run) -> str | None:
    name = run.summary.get("data")
    return f"{name}{' (synthetic)' if run.summary.get('synthetic_data') else ''}" if name else None


def data(run: Run) -> str | None:
    name, sizes = data_set(run), run.summary.get("num_samples")
    if not name or not isinstance(sizes, dict):
        return name
    counts = [f"{count:,} {SPLITS.get(split, split)}" for split, count in sizes.items()]
    return f"{name} ({listed(counts)} samples; batch size {run.summary.get('batch_size')})"


def model(run: Run) -> str | None:
    parameters = run.number("num_parameters")
    name = run.choices.get("model") or nested(run.config, "model", "_target_")
    return f"{name} ({parameters:,.0f} parameters)" if name and parameters else None


def length(run: Run) -> str | None:
    """What the run was given, not what it used: an early stop is a result."""
    if steps := nested(run.config, "trainer", "max_steps"):
        return f"{steps} steps"
    if limit := nested(run.config, "trainer", "limit_train_steps"):
        return f"{limit} steps of a horizon of {run.summary.get('horizon_steps')}"
    epochs = nested(run.config, "trainer", "max_epochs")
    return f"{epochs} epochs" if epochs else None


def hardware(run: Run) -> str | None:
    device, name = run.summary.get("device"), run.summary.get("hardware")
    if not device:
        return None
    processes, threads = run.summary.get("world_size"), run.summary.get("num_threads")
    return (
        f"{device}{f' ({name})' if name else ''}, {processes} process{'es' * (processes != 1)}, "
        f"{threads} thread{'s' * (threads != 1)}"
    )


def commit(run: Run) -> str | None:
    name = str(run.summary.get("git_commit") or "")[:12]
    changed = " with uncommitted changes" if run.summary.get("git_dirty") else ""
    return f"{name}{changed}" if name else None


def versions(run: Run) -> str | None:
    found = run.summary.get("versions")
    if not isinstance(found, dict):
        return None
    return ", ".join(f"{name} {version}" for name, version in found.items())


def precision(run: Run) -> str | None:
    return run.summary.get("precision")


FACTS: dict[str, Callable[[Run], str | None]] = {
    "data": data,
    "model": model,
    "length": length,
    "hardware": hardware,
    "precision": precision,
    "commit": commit,
    "versions": versions,
}


def counted(runs: Sequence[Run], fact: Callable[[Run], str | None]) -> list[str]:
    """Every value that a fact has among the runs, with its count where there are several."""
    found = Counter(str(value) for run in runs if (value := fact(run)))
    if len(found) == 1:
        return list(found)
    return [f"{value} ({count} runs)" for value, count in found.most_common()]


def facts(runs: Sequence[Run]) -> dict[str, list[str]]:
    return {name: counted(runs, fact) for name, fact in FACTS.items()}


def run_table(comparison: Comparison) -> pd.DataFrame:
    """One row per run, in words; columns that no run fills are left out."""
    metric = comparison.question.validation
    rows = []
    for run in comparison.runs:
        value = run.validation
        rows.append(
            {
                "run": run.name,
                "candidate": run.candidate,
                "setting": label(run.setting) if run.candidate == run.family else "",
                "phase": run.phase,
                "seed": run.seed,
                "status": run.status,
                metric: "" if value is None else metric_value(metric, value),
                "steps": str(run.summary.get("steps", "")),
                "initial weights": str(run.summary.get("initial_weights_hash", ""))[:8],
                "sample order": str(run.summary.get("data_order_hash", ""))[:8],
                "overrides": " ".join(run.overrides),
                "error": str(run.summary.get("error") or ""),
            }
        )
    table = pd.DataFrame(rows)
    return table.loc[:, (table != "").any()]
