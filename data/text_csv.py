"""Labelled documents from CSV files, tokenized by a pretrained model's tokenizer."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Annotated, Any

import torch
from pydantic import Field

from core.errors import ConfigError, reason
from core.schema import BelowOne
from data.documents import TextClassificationSpec, TokenSplit
from data.held_out import numbered, split_off, train_val_test
from data.splits import Splits
from data.text_files import name_of, read_csv, split_files
from models.pretrained import locate

Rows = list[tuple[str, str]]  # text and label as in the file
MaxLength = Annotated[int, Field(ge=3)]  # of a document in tokens
CLASSES_SHOWN = 20  # class names listed in a message


def text_csv(
    root: str,
    path: str,
    val_path: str | None,
    test_path: str | None,
    val_fraction: BelowOne,
    test_fraction: BelowOne,
    text_column: str,
    label_column: str,
    delimiter: str | None,
    tokenizer: Any,
    max_length: MaxLength,
) -> Splits:
    """Text classification from a CSV file with a header; its sorted labels are the classes.

    Validation and test are separate files or stratified fractions of ``path``, the same for every
    seed.

    Args:
        root: base folder of relative paths.
        val_path: null: ``val.csv`` next to ``path`` if that is called ``train.csv``.
        test_path: the same with ``test.csv``.
        delimiter: column separator; null: see :func:`data.text_files.read_csv`.
        tokenizer: model that the tokenizer belongs to; see :func:`models.pretrained.locate`.
        max_length: maximum number of tokens, special ones included; longer texts are truncated.

    Raises:
        ConfigError: if a file is missing, empty or damaged, lacks a column, or has a label that the
            training part does not have; or there is no such tokenizer.
    """
    if text_column == label_column:
        raise ConfigError(f"data.text_column and data.label_column are both {text_column}")
    columns = {text_column: "data.text_column", label_column: "data.label_column"}
    notes: list[str] = []
    files = split_files(root, path, val_path, test_path)
    rows = {
        split: [
            (row.cells[text_column], row.cells[label_column])
            for row in read_csv(file, where, columns, delimiter, notes)
        ]
        for split, (file, where) in files.items()
    }
    fractions = {"val": val_fraction, "test": test_fraction}
    name = name_of(files["train"][0])
    return document_splits(name, path, rows, fractions, tokenizer, max_length, notes)


def document_splits(
    name: str,
    path: str,
    rows: dict[str, Rows],
    fractions: dict[str, float],
    tokenizer: Any,
    max_length: int,
    notes: list[str],
) -> Splits:
    """Data set of labelled texts; the sorted training labels are the classes.

    Args:
        rows: those of ``train``, and optionally of ``val`` and ``test``.
        fractions: share of training for each split that is missing; 0: none.

    Raises:
        ConfigError: if there is one class, a label that training lacks, or no such tokenizer.
    """
    parts = split_off(rows, fractions, numbered([label for _, label in rows["train"]]))
    class_names = tuple(sorted({label for _, label in parts["train"]}))
    if len(class_names) < 2:
        raise ConfigError(
            f"data.path={path}: all examples have the label {class_names[0]}: nothing to learn"
        )
    notes += [*training_duplicates(parts), *similar_labels(class_names)]
    spec = make_spec(name, class_names, tokenizer, max_length)
    splits = {split: token_split(part, spec, split, notes) for split, part in parts.items()}
    return Splits(*train_val_test(splits), spec, notes=notes)


def training_duplicates(parts: dict[str, Rows]) -> Iterator[str]:
    """A note for every evaluation split with documents that are also in training."""
    training_texts = {text for text, _ in parts["train"]}
    for name in ("val", "test"):
        count = sum(text in training_texts for text, _ in parts.get(name, ()))
        if count:
            yield f"{count:,} of {len(parts[name]):,} {name} documents are also in training"


def similar_labels(class_names: Sequence[str]) -> Iterator[str]:
    """A note for labels that may be meant as one class, such as ``pos`` and ``Pos``."""
    spellings: dict[Any, list[str]] = {}
    for name in class_names:
        try:
            key: Any = str(float(name))
        except ValueError:
            key = name.casefold()
        spellings.setdefault(key, []).append(name)
    for names in spellings.values():
        if len(names) > 1:
            yield f"the labels {' and '.join(names)} count as different classes"


def make_spec(
    name: str, class_names: tuple[str, ...], tokenizer: Any, max_length: int
) -> TextClassificationSpec:
    """The spec, with the serialized tokenizer and its model's config."""
    # takes seconds to import: only when used
    from transformers import AutoConfig, AutoTokenizer

    source = locate(tokenizer, "data.tokenizer")
    try:
        loaded = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"data.tokenizer={tokenizer} cannot be loaded: {reason(error)}"
        ) from error
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        architecture = config.to_json_string()
    except (OSError, ValueError, KeyError):  # a tokenizer without a model
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
    """The rows as tokens and class numbers; ``notes`` gets the number of truncated ones."""
    for _, label in rows:
        if label not in spec.class_names:
            shown = ", ".join(spec.class_names[:CLASSES_SHOWN])
            raise ConfigError(
                f"the {name} examples have a label {label}, which training does not have: "
                f"its classes are {shown}{', ...' * (spec.num_classes > CLASSES_SHOWN)}"
            )
    encodings = spec.encodings([text for text, _ in rows])
    num_cut = sum(bool(encoding.overflowing) for encoding in encodings)
    if num_cut:
        notes.append(
            f"{num_cut:,} of {len(rows):,} {name} documents are truncated to data.max_length="
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
