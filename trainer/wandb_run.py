"""A run directory as a run of Weights & Biases: what goes where. All that speaks to W&B."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from trainer.lean_wandb import import_wandb

# overrides that say where and how a run is made, not what is compared
NOT_COMPARED = ("seed", "study", "resume", "trainer", "debug", "data.root")
NOT_COMPARED_PARTS = ("wandb.", "hydra", "trainer.devices", "trainer.accelerator", "trainer.num_")
CODE_ROOMS = ("models", "data", "optim", "trainer")


def open_run(config: dict[str, Any], run_dir: Path, overrides: list[str], **identity: Any) -> Any:
    """Start a W&B run, or go on with it if the server knows its id."""
    wandb = import_wandb()
    # the console is captured by train.log; statistics of the machine would be another thread, and
    # what W&B notes of the process has the command line with whatever secrets stand there
    quiet = wandb.Settings(
        console="off",
        silent=True,
        x_disable_stats=True,
        x_disable_meta=True,
        program="train.py",  # gives the code its name, which has versions
        program_relpath="train.py",
    )
    named = config["wandb"].get("candidate")  # a study names its runs: adamw-tune-003
    run = wandb.init(
        project=config["wandb"]["project"],
        entity=config["wandb"]["entity"],
        tags=config["wandb"]["tags"],
        job_type=config["wandb"]["job_type"],
        dir=str(run_dir),
        config={**config, "candidate": candidate(config, overrides), "run_dir": str(run_dir)},
        notes=config["wandb"].get("notes"),
        name=config["wandb"].get("name")
        or (run_dir.name if named else run_name(overrides) or run_dir.name),
        settings=quiet,
        reinit="create_new",
        resume="allow" if identity["mode"] == "online" else None,
        **identity,
    )
    for axis in ("step", "seconds", "epoch"):  # to choose as x, not to look at
        run.define_metric(axis, hidden=True)
    run.define_metric("*", step_metric="step")
    run.define_metric(config["monitor"], step_metric="step", summary=config["monitor_mode"])
    return run


def log_code(run: Any) -> None:
    """The code that a run is made of, as a version of an artifact; its config is recorded anyway.

    W&B's own ``run.log_code`` would search environments and outputs, too, or has to be given a
    copy, and takes twice as long: time that a run on a small machine misses.
    """
    import wandb

    root = Path(__file__).parent.parent
    code = wandb.Artifact("training-code", type="code")
    files = [
        root / "train.py",
        *(file for room in CODE_ROOMS for file in (root / room).rglob("*.py")),
    ]
    for file in sorted(files):
        code.add_file(str(file), name=file.relative_to(root).as_posix())
    run.log_artifact(code)
    run.config.update({"_wandb": {"code_path": code.name}}, allow_val_change=True)  # for its page


def run_name(overrides: list[str]) -> str:
    """What the command line set, apart from where and how it is logged."""
    return ", ".join(text for text in overrides if not text.startswith(("wandb.", "data.root")))


def candidate(config: dict[str, Any], overrides: list[str]) -> str:
    """What is compared in the group: a column that W&B can group the runs of a sweep by."""
    if config["wandb"].get("candidate"):
        return str(config["wandb"]["candidate"])
    pairs = [override.lstrip("+").partition("=") for override in overrides]
    chosen = [
        f"{key}={value}" if "." in key else value
        for key, _, value in pairs
        if key not in NOT_COMPARED and not key.startswith(NOT_COMPARED_PARTS)
    ]
    # a run with phases has no optimizer at the top
    named = config["optimizer"] or config["model"]
    return ", ".join(chosen) or str(named["_target_"]).rpartition(".")[2]


def close_run(run: Any, summary: dict[str, Any], run_dir: Path) -> None:
    """Send the files and the summary, and how the run ended."""
    # not config.yaml: W&B writes one of its own over it, through the link that it saves
    for name in ("train.log", "metrics.jsonl"):
        run.save(str(run_dir / name), base_path=str(run_dir), policy="now")
    # the monitored metric keeps the best-of that define_metric makes
    known = {
        key: value for key, value in summary.items() if key not in ("wandb", summary.get("monitor"))
    }
    run.summary.update(known)
    if summary["status"] == "interrupted":
        run.mark_preempting()
    run.finish(exit_code=int(summary["status"] not in ("completed", "stopped", "pruned")))


def send_event(run: Any, number: int, event: dict[str, Any], run_dir: Path) -> None:
    """Send line ``number`` of ``metrics.jsonl``.

    Its number is W&B's own step: of a run that goes on after a crash, the lines that W&B already
    has are computed again, and W&B ignores them. Curves are drawn over the event's ``step``.
    """
    values = {key: value for key, value in event.items() if key != "media"}
    for name, entry in event.get("media", {}).items():
        values[name] = medium(entry, run_dir / "media")
    run.log(values, step=number)


def medium(entry: dict[str, str], folder: Path) -> Any:
    """A recorded picture, text, table or confusion matrix as W&B shows it."""
    import wandb

    file = inside(folder, entry["file"])
    if entry["kind"] == "text":
        content = html.escape(file.read_text(encoding="utf-8"))
        return wandb.Html(f"<pre>{content}</pre>")

    if entry["kind"] == "picture":
        return wandb.Image(str(file), caption=entry["caption"])
    content = json.loads(file.read_text())
    if entry["kind"] == "confusion_matrix":
        names = content["class_names"]
        rows = [
            [names[i], names[j], count]
            for i, row in enumerate(content["counts"])
            for j, count in enumerate(row)
        ]
        table = wandb.Table(columns=["Actual", "Predicted", "nPredictions"], data=rows)
        fields = {"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"}
        return wandb.plot_table(
            "wandb/confusion_matrix/v1", table, fields, {"title": "Confusion matrix"}
        )
    columns = content["columns"]
    rows = [list(row) for row in content["rows"]]
    if "image" in columns:
        position = columns.index("image")
        for row in rows:
            image = row[position] and inside(folder, file.parent / row[position])
            row[position] = wandb.Image(str(image)) if image else None
    return wandb.Table(columns=columns, data=rows)


def inside(folder: Path, name: str | Path) -> Path:
    """A file of ``folder``: a doctored record must not send another one away.

    Raises:
        ConfigError: it is elsewhere.
    """
    file = (folder / name).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise ConfigError(f"metrics.jsonl names a file outside of {folder}: {name}")
    return file
