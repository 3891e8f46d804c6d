"""Log the report to Weights & Biases: a summary run in the runs' group, and a workspace.

The summary run works offline too and needs no account. The workspace needs a server and the
optional package ``wandb-workspaces``.
"""

import hashlib
import os
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import wandb

from analysis.comparison import Comparison
from analysis.page import Report
from analysis.runs import DRAWN, ReportError, Run, nested
from analysis.tables import frame
from analysis.tuning import swept_keys, trials_of

LOGIN_SECONDS = 30


def publish(report: Report, files: list[Path]) -> str:
    """Log the table and the page as a run of the group, and return a message.

    Raises:
        ReportError: if W&B cannot be reached, or refuses.
    """
    comparison, runs = report.comparison, report.comparison.runs
    group = most_common(runs, "group") or runs[0].path.resolve().parent.name
    mode = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
    if mode == "disabled":
        raise ReportError("WANDB_MODE=disabled: nothing was sent")
    quiet = wandb.Settings(
        console="off",
        silent=True,
        x_disable_stats=True,
        x_disable_meta=True,
        init_timeout=LOGIN_SECONDS,
    )
    wandb.setup(quiet)
    try:
        with wandb.init(
            project=most_common(runs, "project"),
            entity=most_common(runs, "entity"),
            group=group,
            name=f"report of {group}",
            job_type="report",
            id=f"report-{hashlib.sha256(group.encode()).hexdigest()[:12]}",
            resume="allow",  # a second report of the group replaces the first
            mode=mode,  # type: ignore[arg-type]  # one of W&B's own
            dir=files[0].parent,
            config={"candidate": "report", "monitor": comparison.question.validation},
            settings=quiet,
        ) as run:
            log(run, report, files)
            where = run.url or f"{run.dir} (send it with: wandb sync {Path(run.dir).parent})"
            place = (run.entity, run.project)
        if mode == "offline":
            return f"W&B summary run, offline: {where}"
        return f"W&B summary run: {where}\n{save_workspace(comparison, *place, group)}"
    except wandb.Error as error:
        raise ReportError(f"W&B: {error}") from error


def log(run: wandb.Run, report: Report, files: list[Path]) -> None:
    """The table, the page and the claims."""
    table = frame(report.comparison)
    rows = table.astype(object).where(table.notna(), None).values.tolist()
    content: dict[str, Any] = {"report/candidates": wandb.Table(columns=list(table), data=rows)}
    for file in files:
        run.save(str(file), base_path=str(file.parent), policy="now")
        if file.suffix == ".html":
            content["report/page"] = wandb.Html(file.read_text(encoding="utf-8"), inject=False)
    run.log(content)
    run.summary["report/claims"] = " ".join(report.claims)
    run.summary["report/best"] = report.comparison.best.name


def save_workspace(comparison: Comparison, entity: str, project: str, group: str) -> str:
    """Save a workspace that shows the group's runs by candidate, over steps and time."""
    try:
        panels: Any = import_module("wandb_workspaces.reports.v2")
        workspaces: Any = import_module("wandb_workspaces.workspaces")
    except ImportError:
        return "no W&B workspace: it needs pip install wandb-workspaces"
    question = comparison.question
    training = [name for kind in DRAWN for name in comparison.metrics(*kind)]
    curves = [
        panels.LinePlot(title=f"{metric} over {x}", x=x, y=[metric])
        for metric in (question.validation, *training)
        for x in ("step", "seconds")
    ]
    numbers = ["best.value", question.test, "train_seconds", "step_ms", "optimizer_step_ms"]
    bars = [panels.BarPlot(title=name, metrics=[name]) for name in numbers if name]
    swept = swept_keys(trials_of(comparison.runs))
    try:
        view = workspaces.Workspace(
            entity=entity,
            project=project,
            name=f"Study {group}",
            auto_generate_panels=True,  # samples, tables and everything else that was logged
            sections=[
                workspaces.Section(name="Curves", panels=curves, is_open=True),
                workspaces.Section(name="Results", panels=bars, is_open=True),
            ],
            runset_settings=workspaces.RunsetSettings(
                filters=[workspaces.Metric("Group") == group],
                groupby=[workspaces.Config("candidate")],
                pinned_columns=[*(f"config:{key}" for key in swept), "summary:best.value"],
            ),
        ).save()
    except Exception as error:  # a preview API, and servers differ in what they offer
        return f"no W&B workspace: {type(error).__name__}: {str(error).splitlines()[0]}"
    return f"W&B workspace: {view.url}"


def most_common(runs: list[Run], key: str) -> str | None:
    """The most common value of ``key`` among the W&B runs."""
    found = [nested(run.summary, "wandb", key) or nested(run.config, "wandb", key) for run in runs]
    return Counter(found).most_common(1)[0][0]
