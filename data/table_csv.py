"""Tables from CSV files: columns of numbers or categories, one or several of them targets."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from core.errors import ConfigError
from core.schema import BelowOne
from data.held_out import numbered, split_off
from data.splits import Splits, TensorSplit, quantities
from data.tables import UNKNOWN, Column, TableSpec, numeric_column, table_splits
from data.text_files import Row, name_of, read_table, split_files

MISSING = ("", "na", "nan", "n/a", "null", "none", "?")  # in lower case
SHOWN = 5  # names listed in a message


def table_csv(
    root: str,
    path: str,
    target: Any,
    val_path: str | None,
    test_path: str | None,
    val_fraction: BelowOne,
    test_fraction: BelowOne,
    target_type: Literal["auto", "numbers", "classes", "labels"],
    units: Any,
    categories: Any,
    leave_out: Any,
    delimiter: str | None,
) -> Splits:
    """A CSV file with a header; every column that is not a target is an input.

    A column is numeric, or categorical if none of its cells is a number. Missing cells are encoded
    as such, see :class:`data.tables.EncodeTable`. Validation and test are separate files or
    fractions of ``path``, the same for every seed.

    Args:
        root: base folder of relative paths.
        target: column to predict, or a list of them.
        val_path: null: ``val.csv`` next to ``path`` if that is called ``train.csv``.
        test_path: the same with ``test.csv``.
        target_type: ``numbers``; ``classes``, one per distinct cell; ``labels``, columns of 0 and 1
            (multi-label); ``auto``: numbers, or classes if the cells are text.
        units: unit of each target, or one for all.
        categories: numeric columns to treat as categories, such as postcodes.
        leave_out: columns to ignore, such as a row number.
        delimiter: column separator; null: see :func:`data.text_files.read_table`.

    Raises:
        ConfigError: if a file is missing, empty or damaged, a column is missing or mixes text and
            numbers, or a target is missing or of the wrong kind.
    """
    targets = names_in(target, "target")
    if not targets:
        raise ConfigError("data.target names no column to predict")
    notes: list[str] = []
    files = split_files(root, path, val_path, test_path)
    source = files["train"][0]
    named = {name: f"data.target={name}" for name in targets}
    parts = {
        split: rows_of(file, where, named, delimiter, notes)
        for split, (file, where) in files.items()
    }
    header = list(parts["train"][0].cells)
    for split, rows in parts.items():
        if missing := [name for name in header if name not in rows[0].cells]:
            raise ConfigError(f"{files[split][0]} has no column {missing[0]}, which {source} has")
    fractions = {"val": val_fraction, "test": test_fraction}
    parts = split_off(parts, fractions, classes_of(parts["train"], targets))
    unused, categorical = names_in(leave_out, "leave_out"), names_in(categories, "categories")
    for name in (*categorical, *unused):
        if name not in header:
            raise ConfigError(f"data.categories, data.leave_out: {source} has no column {name}")
    inputs = [name for name in header if name not in (*targets, *unused)]
    if not inputs:
        raise ConfigError(
            f"data.path={source} has no columns besides data.target and data.leave_out: there "
            "is nothing to predict from"
        )
    kind = kind_of(parts, targets) if target_type == "auto" else target_type
    encoded, class_names = TARGETS[kind](parts, targets)
    columns = tuple(column_of(name, parts["train"], categorical) for name in inputs)
    target_quantities = None
    if kind == "numbers":
        target_quantities = quantities(targets, units_of(units, targets), encoded["train"])
    spec = TableSpec(
        name=name_of(source), columns=columns, class_names=class_names, quantities=target_quantities
    )
    splits = {
        split: TensorSplit(raw_rows(rows, columns, split, notes), encoded[split])
        for split, rows in parts.items()
    }
    return table_splits(spec, splits, notes)


def names_in(value: Any, setting: str) -> list[str]:
    """A name or a list of names, as a list."""
    names = [value] if isinstance(value, str) else value or []
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"data.{setting}={value} should be the name of a column, or a list")
    return list(names)


def units_of(units: Any, targets: Sequence[str]) -> list[str]:
    listed = names_in(units, "units") or [""]
    if len(listed) not in (1, len(targets)):
        raise ConfigError(
            f"data.units={units} should be one, or one for each of {', '.join(targets)}"
        )
    return listed * (len(targets) // len(listed))


def rows_of(
    file: Path, where: str, columns: dict[str, str], delimiter: str | None, notes: list[str]
) -> list[Row]:
    """The rows of a file, whose columns must have different names; see :func:`read_table`."""
    header, rows = read_table(file, where, columns, delimiter, notes)
    for name in header:
        if header.count(name) > 1:
            raise ConfigError(f"{where}, line 1: {header.count(name)} columns called {name}")
    return rows


def classes_of(rows: Sequence[Row], targets: Sequence[str]) -> Tensor | None:
    """Classes to stratify splits by; None if a target has many distinct values."""
    cells = [row.cells[targets[0]] for row in rows]
    are_many = len(targets) > 1 or len(set(cells)) > math.sqrt(len(rows))
    return None if are_many else numbered(cells)


def number(cell: str) -> float | None:
    """The cell as a float; None if it is not a number."""
    try:
        return float(cell)
    except ValueError:
        return None


def is_missing(cell: str) -> bool:
    return cell.lower() in MISSING


def kind_of(parts: dict[str, list[Row]], targets: Sequence[str]) -> str:
    """``classes`` for one column of text alone, else ``numbers``, where text is an error."""
    cells = [row.cells[name] for rows in parts.values() for row in rows for name in targets]
    are_text = all(number(cell) is None for cell in cells if not is_missing(cell))
    return "classes" if are_text and len(targets) == 1 else "numbers"


def column_of(name: str, rows: Sequence[Row], categories: Sequence[str]) -> Column:
    """The column, its type and statistics inferred from the training rows.

    Raises:
        ConfigError: if it mixes numbers and text.
    """
    present = [row for row in rows if not is_missing(row.cells[name])]
    text = [row for row in present if number(row.cells[name]) is None]
    if name in categories or (present and len(text) == len(present)):
        names = tuple(sorted({row.cells[name] for row in present}))
        return Column(name, categories=(*names, "") if len(present) < len(rows) else names)
    if text:
        raise ConfigError(
            f"{text[0]}: {name}={text[0].cells[name]} should be a number, as in other rows; "
            f"set data.categories=[{name}] for a column of categories, or "
            f"data.leave_out=[{name}] to ignore it"
        )
    values = [math.nan if is_missing(row.cells[name]) else float(row.cells[name]) for row in rows]
    return numeric_column(name, torch.tensor(values, dtype=torch.float64))


def raw_rows(
    rows: Sequence[Row], columns: Sequence[Column], split: str, notes: list[str]
) -> Tensor:
    """The rows as float32 ``(N, columns)``; ``notes`` gets the missing and unknown cells."""
    raw = torch.tensor([[value_of(row, column) for column in columns] for row in rows])
    missing = {
        column.name: sum(is_missing(row.cells[column.name]) for row in rows) for column in columns
    }
    if counts := [f"{name} {count:,}" for name, count in missing.items() if count]:
        more = f" and {len(counts) - SHOWN} more columns" if len(counts) > SHOWN else ""
        notes.append(
            f"{split}: missing values among {len(rows):,} rows: {', '.join(counts[:SHOWN])}{more}; "
            "replaced by the mean or a separate category"
        )
    for column, count in zip(columns, (raw == UNKNOWN).sum(0).tolist(), strict=True):
        if column.categories and count:
            notes.append(f"{split}: {count:,} rows have a {column.name} unseen in training")
    return raw


def value_of(row: Row, column: Column) -> float:
    """A cell's number, or its index among the categories."""
    cell = row.cells[column.name]
    if column.categories:
        cell = "" if is_missing(cell) else cell
        return float(column.categories.index(cell)) if cell in column.categories else UNKNOWN
    return math.nan if is_missing(cell) else finite(row, column.name, f"{column.name}={cell}")


def finite(row: Row, name: str, shown: str) -> float:
    """The cell as a float; raises ConfigError if it is not a finite number."""
    value = number(row.cells[name])
    if value is None or not math.isfinite(value):
        raise ConfigError(f"{row}: {shown} should be a number")
    return value


EncodedTargets = tuple[dict[str, Tensor], tuple[str, ...]]  # targets of each split; class names


def as_numbers(parts: dict[str, list[Row]], targets: Sequence[str]) -> EncodedTargets:
    def value(row: Row, name: str) -> float:
        return finite(row, name, f"the target {name} is {row.cells[name] or 'missing'}, it")

    return {
        split: torch.tensor([[value(row, name) for name in targets] for row in rows])
        for split, rows in parts.items()
    }, ()


def as_classes(parts: dict[str, list[Row]], targets: Sequence[str]) -> EncodedTargets:
    if len(targets) > 1:
        raise ConfigError(
            f"data.target={', '.join(targets)}: data.target_type=classes has one column, "
            "data.target_type=labels has several"
        )
    (target,) = targets
    names = tuple(sorted({row.cells[target] for row in parts["train"]}))
    for row in (row for rows in parts.values() for row in rows):
        cell = row.cells[target]
        if is_missing(cell):
            raise ConfigError(f"{row}: the target {target} is missing")
        if cell not in names:
            raise ConfigError(
                f"{row}: the target {target} is {cell}, which training does not have: its classes "
                f"are {', '.join(names[:SHOWN])}{', ...' * (len(names) > SHOWN)}"
            )
    return {
        split: torch.tensor([names.index(row.cells[target]) for row in rows])
        for split, rows in parts.items()
    }, names


def as_labels(parts: dict[str, list[Row]], targets: Sequence[str]) -> EncodedTargets:
    numbers, _ = as_numbers(parts, targets)
    for rows in numbers.values():
        if not ((rows == 0) | (rows == 1)).all():
            raise ConfigError("data.target_type=labels needs columns of 0 and 1 as data.target")
    return {split: rows.to(torch.uint8) for split, rows in numbers.items()}, tuple(targets)


TARGETS = {"numbers": as_numbers, "classes": as_classes, "labels": as_labels}


def read_rows(
    file: Path, columns: Sequence[Column], delimiter: str | None
) -> Iterator[tuple[int, Tensor, list[str]]]:
    """Yield line, raw row ``(columns,)`` and notes of every row of a CSV file to predict from.

    Raises:
        ConfigError: if the file cannot be read, lacks a column, or has text in a numeric one.
    """
    names = {column.name: "a column of the training table" for column in columns}
    for row in rows_of(file, str(file), names, delimiter, []):
        notes = []
        values = [value_of(row, column) for column in columns]
        for column, value in zip(columns, values, strict=True):
            if column.categories and value == UNKNOWN:
                cell = row.cells[column.name]
                notes.append(f": a {column.name} unseen in training, such as {cell}")
            elif math.isnan(value) and not column.has_missing:
                notes.append(f": {column.name} is missing, which it never is in training")
        yield row.line, torch.tensor(values), notes
