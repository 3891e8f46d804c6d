"""Labelled texts from CSV files, as the tokens of a pretrained model's own tokenizer."""

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import ConfigError
from data.splits import Splits, stratified_split
from data.text_classification_spec import TextClassificationSpec
from data.token_split import TokenSplit
from models.pretrained import locate

SPLIT_SEED = 5000


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
        tokenizer: the model whose tokenizer it is; see :func:`models.pretrained.locate`.
        max_length: tokens of a text, its special tokens included; longer ones are cut.

    Raises:
        ConfigError: a file is missing, empty or damaged, lacks a column, or has a label that the
            training part does not have; there is no such tokenizer.
    """
    if max_length < 3:
        raise ConfigError(f"data.max_length={max_length} should be 3 or more")
    source = Path(root) / path
    columns = (text_column, label_column)
    rows = read_rows(source, "data.path", columns)
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
            parts[name] = read_rows(file, f"data.{name}_path", columns)
    class_names = tuple(sorted(set(parts["train"].labels)))
    if len(class_names) < 2:
        raise ConfigError(
            f"data.path={path}: all texts have the label {class_names[0]}: nothing to learn"
        )
    name = source.parent.name if source.name == "train.csv" else source.stem
    spec = make_spec(name, class_names, tokenizer, max_length)
    splits = {name: token_split(part, spec, name) for name, part in parts.items() if len(part)}
    return Splits(splits["train"], splits.get("val"), splits.get("test"), spec)


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


def read_rows(file: Path, where: str, columns: tuple[str, str]) -> Rows:
    """The two columns of a CSV file.

    Raises:
        ConfigError: the file cannot be read, or a line of it lacks a text or a label.
    """
    csv.field_size_limit(sys.maxsize)  # a text may be longer than csv's own 131,072 characters
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, strict=True)
            check_columns(reader.fieldnames, columns, f"{where}={file}")
            cells = [
                (reader.line_num, [(row[column] or "").strip() for column in columns])
                for row in reader
            ]
    except FileNotFoundError:
        raise ConfigError(f"{where}={file}: there is no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise ConfigError(f"{where}={file} cannot be read as CSV: {reason}") from error
    for line, values in cells:
        for column, value in zip(columns, values, strict=True):
            if not value:
                raise ConfigError(f"{where}={file}, line {line}: the column {column} is empty")
    if not cells:
        raise ConfigError(f"{where}={file} has a header and no texts")
    return Rows([text for _, (text, _) in cells], [label for _, (_, label) in cells])


def check_columns(header: Sequence[str] | None, columns: tuple[str, str], where: str) -> None:
    if not header:
        raise ConfigError(f"{where} is empty")
    settings = ("data.text_column", "data.label_column")
    for setting, column in zip(settings, columns, strict=True):
        if column not in header:
            nearest = get_close_matches(column, header, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise ConfigError(
                f"{where} has no column {column} ({setting}), but {', '.join(header)}{hint}"
            )


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


def token_split(rows: Rows, spec: TextClassificationSpec, name: str) -> TokenSplit:
    """The rows as tokens and class numbers, resident."""
    classes = {label: i for i, label in enumerate(spec.class_names)}
    for label in rows.labels:
        if label not in classes:
            raise ConfigError(
                f"the {name} texts have a label {label}, which no training text has: those have "
                f"{', '.join(spec.class_names)}"
            )
    encoded = spec.tokens(rows.texts)
    lengths = [len(tokens) for tokens in encoded]
    return TokenSplit(
        tokens=torch.tensor([token for tokens in encoded for token in tokens], dtype=torch.int32),
        starts=torch.tensor([0, *accumulate(lengths)][:-1]),
        lengths=torch.tensor(lengths),
        labels=torch.tensor([classes[label] for label in rows.labels]),
        pad_token_id=spec.pad_token_id,
    )
