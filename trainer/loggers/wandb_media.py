"""Convert recorded media to W&B's types."""

import html
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.records import open_record, read_record


def wandb_medium(entry: dict[str, str], folder: Path) -> Any:
    """Convert a recorded picture, text, table or confusion matrix to a W&B object.

    Args:
        entry: a media entry of ``metrics.jsonl``.
        folder: the run directory's ``media/``.
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
    """W&B's confusion matrix chart from counts; W&B's own helper needs all predictions."""
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
    """Path of a file in ``folder``. A tampered record must not upload files from elsewhere.

    Raises:
        ConfigError: if the path is outside ``folder``.
    """
    file = (folder / name).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise ConfigError(f"metrics.jsonl names a file outside of {folder}: {name}")
    return file
