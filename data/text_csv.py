"""Labelled documents from CSV files, as the tokens of a pretrained model's own tokenizer."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from core.errors import ConfigError, reason
from data.documents import TextClassificationSpec, TokenSplit
from data.splits import Splits, stratified_split
from data.text_files import read_csv
from models.pretrained import locate

Rows = list[tuple[str, str]]  # texts and labels, as written
CLASSES_SHOWN = 20  # in a message


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
        delimiter: between the columns; null: see :func:`data.text_files.read_csv`.
        tokenizer: the model whose tokenizer it is; see :func:`models.pretrained.locate`.
        max_length: tokens of a text, its special tokens included; longer ones are cut.

    Raises:
        ConfigError: a file is missing, empty or damaged, lacks a column, or has a label that the
            training part does not have; there is no such tokenizer.
    """
    source = Path(root) / path
    columns = {"data.text_column": text_column, "data.label_column": label_column}
    notes: list[str] = []

    def rows_of(file: Path, setting: str) -> Rows:
        found = read_csv(file, f"{setting}={file}", columns, delimiter, notes)
        return [(text, label) for _, (text, label) in found]

    rows = rows_of(source, "data.path")
    given = {
        "val": beside(source, root, val_path, "val.csv"),
        "test": beside(source, root, test_path, "test.csv"),
    }
    others = {
        name: rows_of(file, f"data.{name}_path") for name, file in given.items() if file is not None
    }
    fractions = {"val": val_fraction, "test": test_fraction}
    parts = split_off(rows, {name: fractions[name] for name in fractions if name not in others})
    parts |= others
    name = source.parent.name if source.name == "train.csv" else source.stem
    return document_splits(name, path, parts, tokenizer, max_length, notes)


def document_splits(
    name: str, path: str, parts: dict[str, Rows], tokenizer: Any, max_length: int, notes: list[str]
) -> Splits:
    """Splits of labelled texts; the classes are the labels of training, sorted.

    Raises:
        ConfigError: there is one class, or a label that training has not; no such tokenizer.
    """
    if max_length < 3:
        raise ConfigError(f"data.max_length={max_length} should be 3 or more")
    class_names = tuple(sorted({label for _, label in parts["train"]}))
    if len(class_names) < 2:
        raise ConfigError(
            f"data.path={path}: all examples have the label {class_names[0]}: nothing to learn"
        )
    notes += [*repeated(parts), *alike(class_names)]
    spec = make_spec(name, class_names, tokenizer, max_length)
    splits = {name: token_split(part, spec, name, notes) for name, part in parts.items() if part}
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
    classes = sorted({label for _, label in rows})
    labels = torch.tensor([classes.index(label) for _, label in rows])
    indices = stratified_split(labels, (rest, *fractions.values()))
    names = ("train", *fractions)
    return {
        name: [rows[i] for i in part.tolist()] for name, part in zip(names, indices, strict=True)
    }


def repeated(parts: dict[str, Rows]) -> Iterator[str]:
    """A line for every split that measures how well training is remembered."""
    known = {text for text, _ in parts["train"]}
    for name in ("val", "test"):
        count = sum(text in known for text, _ in parts.get(name, ()))
        if count:
            yield f"{count:,} of {len(parts[name]):,} {name} documents are in training, too"


def alike(class_names: Sequence[str]) -> Iterator[str]:
    """A line for labels that may be meant as one class, such as ``pos`` and ``Pos``."""
    spellings: dict[Any, list[str]] = {}
    for name in class_names:
        try:
            key: Any = str(float(name))
        except ValueError:
            key = name.casefold()
        spellings.setdefault(key, []).append(name)
    for names in spellings.values():
        if len(names) > 1:
            yield f"the labels {' and '.join(names)} are classes of their own"


def make_spec(
    name: str, class_names: tuple[str, ...], tokenizer: Any, max_length: int
) -> TextClassificationSpec:
    """The spec with all of the tokenizer ``tokenizer``, and its model's architecture."""
    # costs seconds: only for the runs that use it
    from transformers import AutoConfig, AutoTokenizer

    source = locate(tokenizer, "data.tokenizer")
    try:
        loaded = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"data.tokenizer={tokenizer} cannot be loaded: {reason(error)}"
        ) from error
    try:
        found = AutoConfig.from_pretrained(source, trust_remote_code=False)
        architecture = found.to_json_string()
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
    for _, label in rows:
        if label not in spec.class_names:
            shown = ", ".join(spec.class_names[:CLASSES_SHOWN])
            raise ConfigError(
                f"the {name} examples have a label {label}, which training has not: its "
                f"{spec.num_classes} are {shown}{', ...' * (spec.num_classes > CLASSES_SHOWN)}"
            )
    encodings = spec.encodings([text for text, _ in rows])
    num_cut = sum(bool(encoding.overflowing) for encoding in encodings)
    if num_cut:
        notes.append(
            f"{num_cut:,} of {len(rows):,} {name} documents are cut at data.max_length="
            f"{spec.max_length} tokens"
        )
    lengths = [len(encoding.ids) for encoding in encodings]
    return TokenSplit(
        tokens=torch.tensor([token for e in encodings for token in e.ids], dtype=torch.int32),
        starts=torch.tensor([0, *accumulate(lengths)][:-1]),
        lengths=torch.tensor(lengths),
        labels=torch.tensor([spec.class_names.index(label) for _, label in rows]),
        pad_token_id=spec.pad_token_id,
    )
