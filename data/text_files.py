"""Reads text files and CSV tables."""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from core.errors import ConfigError, reason

BYTE_ORDER_MARK = "\ufeff"
DELIMITERS = (",", ";", "\t", "|")
NAMES = {"\t": "tab"}


class Row(NamedTuple):
    """The cells of a row by column name, its file as named by its setting, and its first line."""

    where: str
    line: int
    cells: dict[str, str]

    def __str__(self) -> str:
        return f"{self.where}, line {self.line}"


def read_text(file: Path, where: str) -> str:
    r"""The text of a UTF-8 file, with ``\n`` for every line break and without byte-order marks.

    Concatenated files have a mark at the start of each.

    Args:
        where: the setting and the file, for messages.

    Raises:
        ConfigError: if the file cannot be read or is not UTF-8 text.
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
    """Line numbers and texts: a column of a CSV file, or the lines of any other file."""
    if file.suffix.lower() in (".csv", ".tsv"):
        rows = read_csv(file, str(file), {column: "data.text_column"}, delimiter, [])
        return [(row.line, row.cells[column]) for row in rows]
    lines = read_text(file, str(file)).split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def read_csv(
    file: Path, where: str, columns: dict[str, str], delimiter: str | None, notes: list[str]
) -> list[Row]:
    """The rows of a CSV file with a header, none of them with an empty cell in ``columns``.

    Args:
        columns: name of a column -> the setting that names it, or a description.
        delimiter: null: the one of , ; tab | with which the header has these columns.
        notes: gets a note if that is not a comma.

    Raises:
        ConfigError: if the file cannot be read, lacks a column, has rows of more or fewer cells
            than the header, or an empty cell in one of the columns.
    """
    _, rows = read_table(file, where, columns, delimiter, notes)
    for row in rows:
        for column in columns:
            if not row.cells[column]:
                raise ConfigError(f"{row}: the column {column} is empty")
    return rows


def read_table(
    file: Path, where: str, columns: dict[str, str], delimiter: str | None, notes: list[str]
) -> tuple[list[str], list[Row]]:
    """The header and the rows of a CSV file.

    Arguments and errors as in :func:`read_csv`, but empty cells are allowed.
    """
    csv.field_size_limit(sys.maxsize)  # csv's default limits a cell to 131,072 characters
    text = read_text(file, where)
    chosen = as_character(delimiter) if delimiter else sniff_delimiter(text, list(columns), where)
    name = NAMES.get(chosen, chosen)
    if not delimiter and chosen != ",":
        notes.append(f"{where}: data.delimiter={name}, detected from the header")
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
        rows.append(Row(where, line, dict(zip(header, cells, strict=True))))
    if not rows:
        raise ConfigError(f"{where} has a header and no rows")
    return header, rows


def records(text: str, delimiter: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line number and the cells of every row that is not blank."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise ConfigError(f"{where}, line {line} is not valid CSV: {error}") from error
        if cells is None:
            return
        if cells:
            yield line, [cell.strip() for cell in cells]


def as_character(delimiter: str) -> str:
    delimiter = {"tab": "\t", "\\t": "\t"}.get(str(delimiter), delimiter)
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '\r\n"':
        raise ConfigError(f"data.delimiter={delimiter} should be null, tab or one character")
    return delimiter


def sniff_delimiter(text: str, columns: Sequence[str], where: str) -> str:
    """The delimiter with which the header has these columns, else the most columns."""

    def fit(delimiter: str) -> tuple[bool, int]:
        try:
            _, header = next(records(text, delimiter, where), (1, []))
        except ConfigError:  # quotes do not match with this delimiter
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

    Validation and test default to ``val.csv`` and ``test.csv`` next to a ``train.csv``.
    """
    source = Path(root) / path
    files = {"train": (source, f"data.path={source}")}
    for split, given in (("val", val_path), ("test", test_path)):
        file = source.parent / f"{split}.csv" if given is None else Path(root) / given
        if given is not None or (source.name == "train.csv" and file.is_file()):
            files[split] = file, f"data.{split}_path={file}"
    return files


def name_of(source: Path) -> str:
    """The name of a data set: that of its file, or of the folder of a ``train.csv``."""
    return source.parent.name if source.name == "train.csv" else source.stem
