"""Hugging Face ``datasets`` that were saved by ``save_to_disk``.

Nothing is downloaded, and no code that comes with a data set is run.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from core.errors import ConfigError, reason
from core.schema import BelowOne
from data.splits import Splits
from data.stored_images import class_numbers, image_settings
from data.text_csv import MaxLength, document_splits

NAMES = {"train": ("train",), "val": ("validation", "val", "valid", "dev"), "test": ("test",)}


def huggingface_images(
    path: str,
    root: str,
    image_column: str | None,
    label_column: str | None,
    test_fraction: BelowOne,
    **settings: Any,
) -> Splits:
    """Image classification from an image column and a class column of a saved data set.

    Args:
        path: folder, relative to ``root``.
        image_column, label_column: null: the first column of that type.
        test_fraction: share of ``train``, if there is no test split.
        settings: see :class:`data.stored_images.ImageSettings`.

    Raises:
        ConfigError: if there is no such data set or column, or a setting is wrong.
    """
    images = image_settings(settings, huggingface_images)
    saved = load(root, path)
    from datasets import Image  # takes seconds to import: only when used

    image_column = column_of(saved["train"], image_column, "image_column", "Image")
    labels, class_names = labels_of(saved, label_column)
    sources = {}
    for name, split in saved.items():
        column = split.select_columns(image_column)
        # undecoded: datasets would open formats for which PIL starts other programs
        column = column.cast_column(image_column, Image(decode=False))
        sources[name] = partial(encoded_image, column)
    parts = images.loaded(images.stored(path, sources, labels), test_fraction)
    return images.splits(f"huggingface/{Path(path).name}", parts, class_names)


def huggingface_text(
    path: str,
    root: str,
    text_column: str | None,
    label_column: str | None,
    val_fraction: BelowOne,
    test_fraction: BelowOne,
    tokenizer: Any,
    max_length: MaxLength,
) -> Splits:
    """Text classification from a text column and a class column; see :mod:`data.text_csv`.

    Raises:
        ConfigError: if there is no such data set, column or tokenizer, or a setting is wrong.
    """
    saved = load(root, path)
    text_column = column_of(saved["train"], text_column, "text_column", "string")
    labels, class_names = labels_of(saved, label_column)
    rows = {
        name: [
            (str(text), class_names[label])
            for text, label in zip(split[text_column], labels[name].tolist(), strict=True)
        ]
        for name, split in saved.items()
    }
    fractions = {"val": val_fraction, "test": test_fraction}
    return document_splits(Path(path).name, path, rows, fractions, tokenizer, max_length, [])


def encoded_image(column: Any, place: int) -> bytes | str:
    """The content of an image file, or its path."""
    (image,) = column[place].values()
    return image["bytes"] or image["path"]


def load(root: str, path: str) -> dict[str, Any]:
    """The saved splits, renamed to ``train``, ``val`` and ``test``; a single one is ``train``.

    Raises:
        ConfigError: if the data set cannot be read or has no training split.
    """
    try:
        from datasets import Dataset, load_from_disk  # takes seconds to import: only when used
    except ImportError as error:
        raise ConfigError("data=huggingface: pip install datasets") from error
    folder = Path(root) / path
    try:
        saved = load_from_disk(str(folder))
    except Exception as error:  # the library raises many types
        raise ConfigError(
            f"data.path={folder} is not a data set saved by save_to_disk: {reason(error)}"
        ) from error
    if isinstance(saved, Dataset):
        return {"train": saved}
    splits = {new: saved[old] for new, olds in NAMES.items() for old in olds if old in saved}
    if "train" not in splits:
        raise ConfigError(f"data.path={folder} has no split train, only {', '.join(saved)}")
    return splits


def column_of(split: Any, given: str | None, setting: str, kind: str) -> str:
    """The column ``given``, or the first whose feature type is ``kind``.

    Raises:
        ConfigError: if there is no such column.
    """
    features = split.features
    if given is not None and given not in features:
        raise ConfigError(f"data.{setting}={given}: the columns are {', '.join(features)}")
    candidates = [
        name
        for name, feature in features.items()
        if kind in (type(feature).__name__, getattr(feature, "dtype", None))
    ]
    if given is None and not candidates:
        raise ConfigError(
            f"data.{setting}: no column has the type {kind}; name one of {', '.join(features)}"
        )
    return given or candidates[0]


def labels_of(
    saved: dict[str, Any], given: str | None
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The classes of every split, and their names.

    They are read from ``given``, else from ``label``, else from the first ``ClassLabel`` column.

    Raises:
        ConfigError: if a label is neither a number nor a name, or is missing.
    """
    features = saved["train"].features
    if given is None and "label" in features:
        given = "label"
    column = column_of(saved["train"], given, "label_column", "ClassLabel")
    values: dict[str, Sequence[Any]] = {name: list(split[column]) for name, split in saved.items()}
    numbers, names = class_numbers(values, f"data.label_column={column}")
    return numbers, tuple(getattr(features[column], "names", names))
