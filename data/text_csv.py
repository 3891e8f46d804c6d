"""Labelled documents from CSV files, as the tokens of a pretrained model's own tokenizer."""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import ConfigError
from data.read_text import read_text
from data.splits import Splits, stratified_split
from data.text_classification_spec import TextClassificationSpec
from data.token_split import TokenSplit
from models.pretrained import locate

SPLIT_SEED = 5000
DELIMITERS = (",", ";", "\t", "|")
NAMES = {"\t": "tab"}


@dataclass(frozen=True)
class Rows:
    """The texts of a file and their labels, as written."""

    texts: list[str]
    labels: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Tensor) -> "Rows":
        chosen = indices.tolist()
        return Rows([self.texts[i] for i in chosen], [self.labels[i] for i in chosen])


def text_csv(
    root: str,
    path: str,
    val_path: str | None,
    test_path: str | None,
    val_fraction: float,
    test_fraction: float,
    text_column: str,
    label_column: str,
    delimiter: str | None,
    tokenizer: Any,
    max_length: int,
) -> Splits:
    """The texts of a CSV file with a header; the classes are its labels, sorted.

    Validation and test come from files of their own, else they are fractions of ``path``, every
    class alike and the same whatever the run's seed.

    Args:
        root: the folder that relative paths start from.
        val_path: null: ``val.csv`` beside ``path`` if that is called ``train.csv``.
        test_path: the same with ``test.csv``.
        delimiter: between the columns; null: see :func:`table`.
        tokenizer: the model whose tokenizer it is; see :func:`models.pretrained.locate`.
        max_length: tokens of a text, its special tokens included; longer ones are cut.

    Raises:
        ConfigError: a file is missing, empty or damaged, lacks a column, or has a label that the
            training part does not have; there is no such tokenizer.
    """
    if max_length < 3:
        raise ConfigError(f"data.max_length={max_length} should be 3 or more")
    source = Path(root) / path
    columns = {"data.text_column": text_column, "data.label_column": label_column}
    notes: list[str] = []
    rows = read_rows(source, "data.path", columns, delimiter, notes)
    others = {
        "val": beside(source, root, val_path, "val.csv"),
        "test": beside(source, root, test_path, "test.csv"),
    }
    fractions = {
        name: fraction if others[name] is None else 0.0
        for name, fraction in (("val", val_fraction), ("test", test_fraction))
    }
    parts = {"train": rows}
    if any(fractions.values()):
        parts = split_off(rows, fractions)
    for name, file in others.items():
        if file is not None:
            parts[name] = read_rows(file, f"data.{name}_path", columns, delimiter, notes)
    class_names = tuple(sorted(set(parts["train"].labels)))
    if len(class_names) < 2:
        raise ConfigError(
            f"data.path={path}: all examples have the label {class_names[0]}: nothing to learn"
        )
    name = source.parent.name if source.name == "train.csv" else source.stem
    spec = make_spec(name, class_names, tokenizer, max_length)
    splits = {
        name: token_split(part, spec, name, notes) for name, part in parts.items() if len(part)
    }
    return Splits(splits["train"], splits.get("val"), splits.get("test"), spec, notes=notes)


def beside(source: Path, root: str, path: str | None, name: str) -> Path | None:
    """The file of another split: the given one, else the one called ``name`` beside the source."""
    if path is not None:
        return Path(root) / path
    sibling = source.with_name(name)
    return sibling if source.name == "train.csv" and sibling.is_file() else None


def split_off(rows: Rows, fractions: dict[str, float]) -> dict[str, Rows]:
    """The rows in parts: what the fractions say, and the rest for training."""
    for name, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise ConfigError(f"data.{name}_fraction={fraction} should be at least 0 and below 1")
    rest = 1 - sum(fractions.values())
    if round(rest * len(rows)) < 1:
        raise ConfigError("data.val_fraction and data.test_fraction leave nothing to train on")
    classes = {label: i for i, label in enumerate(sorted(set(rows.labels)))}
    labels = torch.tensor([classes[label] for label in rows.labels])
    indices = stratified_split(labels, (rest, *fractions.values()), SPLIT_SEED)
    names = ("train", *fractions)
    return {name: rows.take(part) for name, part in zip(names, indices, strict=True)}


def read_rows(
    file: Path, where: str, columns: dict[str, str], delimiter: str | None, notes: list[str]
) -> Rows:
    """The two columns of a CSV file; what is to be said of it is added to ``notes``."""
    rows = table(file, f"{where}={file}", columns, delimiter, notes)
    return Rows([text for _, (text, _) in rows], [label for _, (_, label) in rows])


def read_texts(file: Path, column: str, delimiter: str | None) -> list[tuple[int, str]]:
    """The texts of a CSV file's column, or the lines of another file, with their line numbers."""
    if file.suffix.lower() in (".csv", ".tsv"):
        columns = {"data.text_column": column}
        return [(line, text) for line, (text,) in table(file, str(file), columns, delimiter, [])]
    lines = read_text(file, str(file)).split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def table(
    file: Path, where: str, columns: dict[str, str], delimiter: str | None, notes: list[str]
) -> list[tuple[int, list[str]]]:
    """The chosen columns of a CSV file with a header, by row, and each row's first line.

    Args:
        columns: setting -> name of a column.
        delimiter: null chooses the one of , ; tab | with which the header has the columns.

    Raises:
        ConfigError: the file cannot be read, lacks a column, has a row of more or fewer cells than
            the header, or an empty cell in one of the columns.
    """
    csv.field_size_limit(sys.maxsize)  # a text may be longer than csv's own 131,072 characters
    text = read_text(file, where)
    wanted = list(columns.values())
    chosen = checked(delimiter) if delimiter else sniffed(text, wanted, where)
    if not delimiter and chosen != ",":
        notes.append(f"{where}: data.delimiter={NAMES.get(chosen, chosen)}, as its header shows")
    rows = records(text, chosen, where)
    _, header = next(rows, (1, []))
    check_columns(header, columns, where, chosen)
    places = [header.index(column) for column in wanted]
    found = []
    for line, cells in rows:
        if len(cells) != len(header):
            raise ConfigError(
                f"{where}, line {line}: {len(cells)} cells, but the header has {len(header)}: a "
                f"text that contains {NAMES.get(chosen, chosen)} (data.delimiter) needs quotes"
            )
        for place in places:
            if not cells[place]:
                raise ConfigError(f"{where}, line {line}: the column {header[place]} is empty")
        found.append((line, [cells[place] for place in places]))
    if not found:
        raise ConfigError(f"{where} has a header and no rows")
    return found


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


def checked(delimiter: str) -> str:
    by_name = {"tab": "\t", "\\t": "\t"}
    delimiter = by_name.get(delimiter, delimiter)
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
    for setting, column in columns.items():
        if column not in header:
            nearest = get_close_matches(column, header, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise ConfigError(
                f"{where} has no column {column} ({setting}), but {', '.join(header)}, with "
                f"data.delimiter={NAMES.get(delimiter, delimiter)}{hint}"
            )
        if header.count(column) > 1:
            raise ConfigError(f"{where}, line 1: {header.count(column)} columns called {column}")


def make_spec(
    name: str, class_names: tuple[str, ...], tokenizer: Any, max_length: int
) -> TextClassificationSpec:
    """The spec with all of the tokenizer ``tokenizer``, and its model's architecture."""
    from transformers import (
        AutoConfig,
        AutoTokenizer,
    )  # costs seconds: only for the runs that use it

    source = locate(tokenizer, "data.tokenizer")
    try:
        loaded = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"data.tokenizer={tokenizer} cannot be loaded: {reason}") from error
    try:
        architecture = AutoConfig.from_pretrained(source).to_json_string()
    except (OSError, ValueError, KeyError):  # a tokenizer alone
        architecture = None
    return TextClassificationSpec(
        name=name,
        class_names=class_names,
        max_length=max_length,
        tokenizer_content=loaded.backend_tokenizer.to_str(),
        pad_token_id=loaded.pad_token_id or 0,
        architecture=architecture,
    )


def token_split(
    rows: Rows, spec: TextClassificationSpec, name: str, notes: list[str]
) -> TokenSplit:
    """The rows as tokens and class numbers, resident; ``notes`` gets how many were cut."""
    classes = {label: i for i, label in enumerate(spec.class_names)}
    for label in rows.labels:
        if label not in classes:
            raise ConfigError(
                f"the {name} examples have a label {label}, which training has not: those have "
                f"{', '.join(spec.class_names)}"
            )
    encodings = spec.encodings(rows.texts)
    num_cut = sum(bool(encoding.overflowing) for encoding in encodings)
    if num_cut:
        notes.append(
            f"{num_cut:,} of {len(rows):,} {name} documents are cut at data.max_length="
            f"{spec.max_length} tokens"
        )
    encoded = [encoding.ids for encoding in encodings]
    lengths = [len(tokens) for tokens in encoded]
    return TokenSplit(
        tokens=torch.tensor([token for tokens in encoded for token in tokens], dtype=torch.int32),
        starts=torch.tensor([0, *accumulate(lengths)][:-1]),
        lengths=torch.tensor(lengths),
        labels=torch.tensor([classes[label] for label in rows.labels]),
        pad_token_id=spec.pad_token_id,
    )
