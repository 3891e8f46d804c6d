"""Tables from CSV files: numbers and categories, and one or several columns to predict."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from core.errors import ConfigError
from data.splits import Splits, quantities, stratified_split
from data.tables import UNKNOWN, Column, TableSpec, numeric_column, table_splits
from data.text_csv import beside
from data.text_files import read_table

MISSING = ("", "na", "nan", "n/a", "null", "none", "?")  # in lower case
TARGET_TYPES = ("auto", "numbers", "classes", "labels")
SHOWN = 5  # names in a message


class Place(NamedTuple):
    """Where a row stands: its file, with the setting that named it, and its first line."""

    where: str
    line: int

    def __str__(self) -> str:
        return f"{self.where}, line {self.line}"


Row = tuple[Place, dict[str, str]]  # cells by column


def table_csv(
    root: str,
    path: str,
    target: Any,
    val_path: str | None,
    test_path: str | None,
    val_fraction: float,
    test_fraction: float,
    target_type: str,
    units: Any,
    categories: Any,
    leave_out: Any,
    delimiter: str | None,
) -> Splits:
    """The rows of a CSV file with a header; every column that is no target is an input.

    A column holds numbers, or categories if none of its cells is a number. What is missing is said,
    see :class:`data.tables.EncodeTable`. Validation and test come from files of their own, else
    they are fractions of ``path``, the same whatever the run's seed.

    Args:
        root: the folder that relative paths start from.
        target: column to predict, or a list of them.
        val_path: null: ``val.csv`` beside ``path`` if that is called ``train.csv``.
        test_path: the same with ``test.csv``.
        target_type: ``numbers``; ``classes``, one for each different cell; ``labels``, columns of 0
            and 1 that hold for a row or not; ``auto``: numbers, or classes where there is text.
        units: of the numbers, for each target, or for all.
        categories: columns of numbers that are categories, such as postcodes.
        leave_out: columns that are no inputs, such as a row's number.
        delimiter: between the columns; null: see :func:`data.text_files.read_table`.

    Raises:
        ConfigError: a file is missing, empty or damaged, a column is missing or mixes text and
            numbers, a target is missing or of the wrong kind.
    """
    source = Path(root) / path
    targets = names_in(target, "target")
    if not targets:
        raise ConfigError("data.target names no column to predict")
    if target_type not in TARGET_TYPES:
        raise ConfigError(f"data.target_type={target_type} should be {', '.join(TARGET_TYPES)}")
    notes: list[str] = []
    parts = read_parts(
        source,
        {"val": beside(source, root, val_path, "val.csv")}
        | {"test": beside(source, root, test_path, "test.csv")},
        {"val": val_fraction, "test": test_fraction},
        targets,
        delimiter,
        notes,
    )
    all_rows = [row for rows in parts.values() for row in rows]
    header = list(parts["train"][0][1])
    for name in (*names_in(categories, "categories"), *names_in(leave_out, "leave_out")):
        if name not in header:
            raise ConfigError(f"data.categories, data.leave_out: {source} has no column {name}")
    kind = target_type if target_type != "auto" else kind_of(all_rows, targets)
    told, class_names = TARGETS[kind](parts, targets)
    inputs = [name for name in header if name not in (*targets, *names_in(leave_out, "leave_out"))]
    if not inputs:
        raise ConfigError(
            f"data.path={source} has no columns beside data.target and data.leave_out: there is "
            "nothing to predict from"
        )
    columns = tuple(column_of(name, parts["train"], categories or ()) for name in inputs)
    known = None
    if kind == "numbers":
        known = quantities(targets, units_of(units, targets), told["train"])
    name = source.parent.name if source.name == "train.csv" else source.stem
    spec = TableSpec(name=name, columns=columns, class_names=class_names, quantities=known)
    raw = {name: raw_rows(rows, columns, name, notes) for name, rows in parts.items()}
    return table_splits(spec, {name: (raw[name], told[name]) for name in parts}, notes)


def names_in(value: Any, setting: str) -> list[str]:
    """One name or a list of them."""
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


def read_parts(
    source: Path,
    others: dict[str, Path | None],
    fractions: dict[str, float],
    targets: Sequence[str],
    delimiter: str | None,
    notes: list[str],
) -> dict[str, list[Row]]:
    """The rows of each split: of the other files where there are such, else parts of ``source``."""
    columns = {f"data.target={name}": name for name in targets}
    rows = rows_of(source, f"data.path={source}", columns, delimiter, notes)
    given = {
        name: rows_of(file, f"data.{name}_path={file}", columns, delimiter, notes)
        for name, file in others.items()
        if file is not None
    }
    for name, found in given.items():
        if missing := [column for column in rows[0][1] if column not in found[0][1]]:
            raise ConfigError(f"{others[name]} has no column {missing[0]}, but {source} has")
    wanted = {name: fraction for name, fraction in fractions.items() if name not in given}
    for name, fraction in wanted.items():
        if not 0 <= fraction < 1:
            raise ConfigError(f"data.{name}_fraction={fraction} should be at least 0 and below 1")
    rest = 1 - sum(wanted.values())
    if round(rest * len(rows)) < 1:
        raise ConfigError("data.val_fraction and data.test_fraction leave nothing to train on")
    classes = class_numbers(rows, targets)
    indices = stratified_split(classes, (rest, *wanted.values()))
    parts = dict(zip(("train", *wanted), indices, strict=True))
    taken = {name: [rows[i] for i in part.tolist()] for name, part in parts.items()}
    return {name: part for name, part in (taken | given).items() if part}


def rows_of(
    file: Path, where: str, columns: dict[str, str], delimiter: str | None, notes: list[str]
) -> list[Row]:
    header, rows = read_table(file, where, columns, delimiter, notes)
    for name in header:
        if header.count(name) > 1:
            raise ConfigError(f"{where}, line 1: {header.count(name)} columns called {name}")
    return [(Place(where, line), dict(zip(header, cells, strict=True))) for line, cells in rows]


def class_numbers(rows: Sequence[Row], targets: Sequence[str]) -> Tensor:
    """Classes by which to split evenly: none where a target has many different values."""
    cells = [row[targets[0]] for _, row in rows]
    different = sorted(set(cells))
    if len(targets) > 1 or len(different) > math.sqrt(len(rows)):
        return torch.zeros(len(rows))
    return torch.tensor([different.index(cell) for cell in cells])


def number(cell: str) -> float | None:
    """None: it is no number."""
    try:
        return float(cell)
    except ValueError:
        return None


def is_missing(cell: str) -> bool:
    return cell.lower() in MISSING


def kind_of(rows: Sequence[Row], targets: Sequence[str]) -> str:
    """One column of nothing but text is classes; text among numbers is a mistake in these."""
    cells = [row[name] for _, row in rows for name in targets if not is_missing(row[name])]
    are_text = all(number(cell) is None for cell in cells)
    return "classes" if are_text and len(targets) == 1 else "numbers"


def column_of(name: str, rows: Sequence[Row], categories: Sequence[str]) -> Column:
    """What the training rows say of a column.

    Raises:
        ConfigError: it has numbers and text.
    """
    cells = [row[name] for _, row in rows]
    there = [cell for cell in cells if not is_missing(cell)]
    are_numbers = [number(cell) is not None for cell in there]
    if name in categories or (there and not any(are_numbers)):
        found = tuple(sorted(set(there)))
        return Column(name, categories=(*found, "") if len(there) < len(cells) else found)
    if not all(are_numbers):
        place, cell = next(
            (place, row[name])
            for place, row in rows
            if not is_missing(row[name]) and number(row[name]) is None
        )
        raise ConfigError(
            f"{place}: {name}={cell} should be a number, as in other rows; "
            f"data.categories=[{name}] makes categories of the column, data.leave_out=[{name}] "
            "leaves it out"
        )
    values = [math.nan if is_missing(cell) else float(cell) for cell in cells]
    return numeric_column(name, torch.tensor(values, dtype=torch.float64))


def raw_rows(
    rows: Sequence[Row], columns: Sequence[Column], split: str, notes: list[str]
) -> Tensor:
    """The rows as float32 ``(N, columns)``; ``notes`` gets what is missing or unknown."""
    raw = torch.empty(len(rows), len(columns))
    for i, column in enumerate(columns):
        values = [value_of(row[column.name], column, place) for place, row in rows]
        raw[:, i] = torch.tensor(values)
    missing = {
        column.name: sum(is_missing(row[column.name]) for _, row in rows) for column in columns
    }
    if counts := [f"{name} {count:,}" for name, count in missing.items() if count]:
        more = f" and {len(counts) - SHOWN} more columns" if len(counts) > SHOWN else ""
        notes.append(
            f"{split}: missing of {len(rows):,} rows: {', '.join(counts[:SHOWN])}{more}; the mean "
            "or a category of its own stands in"
        )
    for column, count in zip(columns, (raw == UNKNOWN).sum(0).tolist(), strict=True):
        if column.categories and count:
            notes.append(f"{split}: {count:,} rows have a {column.name} that training has not")
    return raw


def value_of(cell: str, column: Column, place: Place) -> float:
    """A cell as its place among the categories, or as the number it is."""
    if column.categories:
        cell = "" if is_missing(cell) else cell
        return float(column.categories.index(cell)) if cell in column.categories else UNKNOWN
    if is_missing(cell):
        return math.nan
    value = number(cell)
    if value is None or not math.isfinite(value):
        raise ConfigError(f"{place}: {column.name}={cell} should be a number")
    return value


Told = tuple[dict[str, Tensor], tuple[str, ...]]  # the targets of each split; names of classes


def as_numbers(parts: dict[str, list[Row]], targets: Sequence[str]) -> Told:
    return {
        name: torch.tensor([[target_number(row, t, place) for t in targets] for place, row in rows])
        for name, rows in parts.items()
    }, ()


def target_number(row: dict[str, str], target: str, place: Place) -> float:
    value = number(row[target])
    if value is None or not math.isfinite(value):
        raise ConfigError(
            f"{place}: the target {target} is {row[target] or 'missing'}, it should be a number"
        )
    return value


def as_classes(parts: dict[str, list[Row]], targets: Sequence[str]) -> Told:
    if len(targets) > 1:
        raise ConfigError(
            f"data.target={', '.join(targets)}: data.target_type=classes has one column, "
            "data.target_type=labels has several"
        )
    (target,) = targets
    names = tuple(sorted({row[target] for _, row in parts["train"]}))
    for rows in parts.values():
        for place, row in rows:
            if is_missing(row[target]):
                raise ConfigError(f"{place}: the target {target} is missing")
            if row[target] not in names:
                raise ConfigError(
                    f"{place}: the target {target} is {row[target]}, which training has not: "
                    f"its classes are {', '.join(names[:SHOWN])}{', ...' * (len(names) > SHOWN)}"
                )
    return {
        name: torch.tensor([names.index(row[target]) for _, row in rows])
        for name, rows in parts.items()
    }, names


def as_labels(parts: dict[str, list[Row]], targets: Sequence[str]) -> Told:
    numbers, _ = as_numbers(parts, targets)
    for rows in numbers.values():
        if not ((rows == 0) | (rows == 1)).all():
            raise ConfigError("data.target_type=labels needs columns of 0 and 1 as data.target")
    return {name: rows.to(torch.uint8) for name, rows in numbers.items()}, tuple(targets)


TARGETS = {"numbers": as_numbers, "classes": as_classes, "labels": as_labels}


def read_rows(
    file: Path, columns: Sequence[Column], delimiter: str | None
) -> Iterator[tuple[int, Tensor, list[str]]]:
    """Line, raw row ``(columns,)`` and what is odd of every row of a CSV file, to predict from.

    Raises:
        ConfigError: it cannot be read, lacks a column, or has text in place of a number.
    """
    names = {f"of the training table: {column.name}": column.name for column in columns}
    for place, row in rows_of(file, str(file), names, delimiter, []):
        notes = []
        values = [value_of(row[column.name], column, place) for column in columns]
        for column, value in zip(columns, values, strict=True):
            if column.categories and value == UNKNOWN:
                notes.append(f": a {column.name} that training has not, such as {row[column.name]}")
            elif math.isnan(value) and not column.has_missing:
                notes.append(f": {column.name} is missing, which it never was in training")
        yield place.line, torch.tensor(values), notes
