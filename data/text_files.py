"""Text files and CSV tables, as they are read everywhere."""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from core.errors import ConfigError, reason
from data.held_out import held_out

BYTE_ORDER_MARK = "\ufeff"
DELIMITERS = (",", ";", "\t", "|")
NAMES = {"\t": "tab"}


def read_text(file: Path, where: str) -> str:
    r"""The text of a UTF-8 file, with ``\n`` for every line break and without byte-order marks.

    Joined files have a mark wherever one of them began.

    Args:
        where: the setting and the file, for messages.

    Raises:
        ConfigError: the file cannot be read, or is no UTF-8 text.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{where}: {reason(error)}") from error
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ConfigError(
            f"{where} is not UTF-8 text: byte {error.start} is 0x{byte:02x}"
        ) from error
    return text.replace(BYTE_ORDER_MARK, "")


def read_lines(file: Path, column: str, delimiter: str | None) -> list[tuple[int, str]]:
    """The texts of a CSV file's column, or the lines of another file, with their line numbers."""
    if file.suffix.lower() in (".csv", ".tsv"):
        rows = read_csv(file, str(file), {column: "data.text_column"}, delimiter, [])
        return [(line, text) for line, (text,) in rows]
    lines = read_text(file, str(file)).split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def read_csv(
    file: Path, where: str, columns: dict[str, str], delimiter: str | None, notes: list[str]
) -> list[tuple[int, list[str]]]:
    """The chosen columns of a CSV file with a header, by row, and each row's first line.

    Args:
        columns: name of a column -> the setting that names it, or what else it is.
        delimiter: null chooses the one of , ; tab | with which the header has the columns.
        notes: gets a line if that is no comma.

    Raises:
        ConfigError: the file cannot be read, lacks a column, has a row of more or fewer cells than
            the header, or an empty cell in one of the columns.
    """
    header, rows = read_table(file, where, columns, delimiter, notes)
    places = [header.index(column) for column in columns]
    for line, cells in rows:
        for place in places:
            if not cells[place]:
                raise ConfigError(f"{where}, line {line}: the column {header[place]} is empty")
    return [(line, [cells[place] for place in places]) for line, cells in rows]


def read_table(
    file: Path, where: str, columns: dict[str, str], delimiter: str | None, notes: list[str]
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header of a CSV file, and the cells of every row with its first line.

    Args, raises: see :func:`read_csv`; empty cells are returned as they are.
    """
    csv.field_size_limit(sys.maxsize)  # a text may be longer than csv's own 131,072 characters
    text = read_text(file, where)
    chosen = as_character(delimiter) if delimiter else sniffed(text, list(columns), where)
    name = NAMES.get(chosen, chosen)
    if not delimiter and chosen != ",":
        notes.append(f"{where}: data.delimiter={name}, as its header shows")
    records_found = records(text, chosen, where)
    _, header = next(records_found, (1, []))
    check_columns(header, columns, where, name)
    rows = []
    for line, cells in records_found:
        if len(cells) != len(header):
            why = f"a text that contains {name} (data.delimiter) needs quotes"
            if len(cells) < len(header):
                why = "a cell is missing"
            raise ConfigError(
                f"{where}, line {line}: {len(cells)} cells, but the header has {len(header)}: {why}"
            )
        rows.append((line, cells))
    if not rows:
        raise ConfigError(f"{where} has a header and no rows")
    return header, rows


def records(text: str, delimiter: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """The first line and the cells of every row that is not blank."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise ConfigError(f"{where}, line {line} is no CSV: {error}") from error
        if cells is None:
            return
        if cells:
            yield line, [cell.strip() for cell in cells]


def as_character(delimiter: str) -> str:
    delimiter = {"tab": "\t", "\\t": "\t"}.get(str(delimiter), delimiter)
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '\r\n"':
        raise ConfigError(f"data.delimiter={delimiter} should be null, tab or one character")
    return delimiter


def sniffed(text: str, columns: Sequence[str], where: str) -> str:
    """The delimiter with which the header has the columns, else the most columns."""

    def fit(delimiter: str) -> tuple[bool, int]:
        try:
            _, header = next(records(text, delimiter, where), (1, []))
        except ConfigError:  # quotes that end elsewhere
            return False, 0
        return set(columns) <= set(header), len(header)

    return max(DELIMITERS, key=fit)


def check_columns(
    header: Sequence[str], columns: dict[str, str], where: str, delimiter: str
) -> None:
    if not header:
        raise ConfigError(f"{where} is empty")
    for column, setting in columns.items():
        if column not in header:
            nearest = get_close_matches(column, header, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise ConfigError(
                f"{where} has no column {column} ({setting}), but {', '.join(header)}, with "
                f"data.delimiter={delimiter}{hint}"
            )
        if header.count(column) > 1:
            raise ConfigError(f"{where}, line 1: {header.count(column)} columns called {column}")


def split_files(
    root: str, path: str, val_path: str | None, test_path: str | None
) -> dict[str, tuple[Path, str]]:
    """The file of each split, and the setting that names it, for messages.

    Of validation and test the given ones, else ``val.csv`` and ``test.csv`` beside a ``train.csv``.
    """
    source = Path(root) / path
    found = {"train": (source, f"data.path={source}")}
    for split, given in (("val", val_path), ("test", test_path)):
        file = source.parent / f"{split}.csv" if given is None else Path(root) / given
        if given is not None or (source.name == "train.csv" and file.is_file()):
            found[split] = file, f"data.{split}_path={file}"
    return found


def name_of(source: Path) -> str:
    """What a data set is called: as its file, or as the folder of a ``train.csv``."""
    return source.parent.name if source.name == "train.csv" else source.stem


def split_off_rows(
    parts: dict[str, list[Any]], classes: Sequence[Any], fractions: dict[str, float]
) -> dict[str, list[Any]]:
    """The rows of every split, with those that are missing taken from ``train``.

    Args:
        classes: of the rows of ``train``, every one in the same proportions afterwards.
        fractions: see :func:`data.held_out.held_out`.
    """
    names = sorted(set(classes))
    numbers = torch.tensor([names.index(name) for name in classes])
    missing = {name: part for name, part in fractions.items() if name not in parts}
    rows = parts["train"]
    taken = {
        name: [rows[i] for i in chosen.tolist()]
        for name, chosen in held_out(numbers, missing).items()
    }
    found = parts | taken
    return {name: found[name] for name in ("train", "val", "test") if name in found}
