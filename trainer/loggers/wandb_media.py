"""Recorded media as W&B shows them."""

import html
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.records import open_record, read_record


def wandb_medium(entry: dict[str, str], folder: Path) -> Any:
    """A recorded picture, text, table or confusion matrix.

    Args:
        entry: of ``metrics.jsonl``.
        folder: the ``media/`` of the run directory.
    """
    import wandb

    file = inside(folder, entry["file"])
    if entry["kind"] == "text":
        with open_record(file) as opened:
            content = html.escape(opened.read().decode())
        return wandb.Html(f"<pre>{content}</pre>")
    if entry["kind"] == "picture":
        return wandb.Image(str(file), caption=entry["caption"])
    content = read_record(file)
    if entry["kind"] == "confusion_matrix":
        return confusion_matrix(content["class_names"], content["counts"])
    columns = content["columns"]
    rows = [list(row) for row in content["rows"]]
    for position in (columns.index(name) for name in content.get("image_columns", ())):
        for row in rows:
            if row[position]:
                row[position] = wandb.Image(str(inside(folder, file.parent / row[position])))
    return wandb.Table(columns=columns, data=rows)


def confusion_matrix(names: list[str], counts: list[list[int]]) -> Any:
    """W&B's chart of counts; its own function for it takes a list of all predictions."""
    import wandb

    rows = [
        [names[i], names[j], count] for i, row in enumerate(counts) for j, count in enumerate(row)
    ]
    columns: list[Any] = ["Actual", "Predicted", "nPredictions"]
    table = wandb.Table(columns=columns, data=rows)
    fields = {name: name for name in columns}
    return wandb.plot_table(
        "wandb/confusion_matrix/v1", table, fields, {"title": "Confusion matrix"}
    )


def inside(folder: Path, name: str | Path) -> Path:
    """A file of ``folder``: a doctored record must not send another one away.

    Raises:
        ConfigError: it is elsewhere.
    """
    file = (folder / name).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise ConfigError(f"metrics.jsonl names a file outside of {folder}: {name}")
    return file
