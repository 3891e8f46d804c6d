"""Data sets of Hugging Face's ``datasets`` that ``save_to_disk`` has saved.

They are read as they are: nothing is downloaded, and no code that comes with a data set is run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from core.errors import ConfigError, reason
from data.images import Augment
from data.splits import Splits
from data.stored_images import StoredImages, check, class_numbers, decoder_of, stored_splits
from data.text_csv import document_splits, split_off
from data.torchvision_sets import with_test

NAMES = {"train": ("train",), "val": ("validation", "val", "valid", "dev"), "test": ("test",)}


def huggingface_images(
    path: str,
    root: str,
    image_column: str | None,
    label_column: str | None,
    image_size: Any,
    channels: int,
    val_fraction: float,
    test_fraction: float,
    resident: Any,
    max_resident_bytes: int,
    max_pixels: int,
    min_crop_area: float,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    augment: Sequence[Augment] = (),
) -> Splits:
    """A column of images and one of classes; decoded as those of an image folder.

    Args:
        path: the folder, from ``root`` on.
        image_column, label_column: null: the first of their kind.
        val_fraction, test_fraction: of ``train``, where there is no such split.

    Raises:
        ConfigError: there is no such data set or column, or a setting is wrong.
    """
    check(channels, val_fraction, resident, min_crop_area)
    saved = load(root, path)
    image_column = column_of(saved["train"], image_column, "image_column", "Image")
    label_column = label_of(saved["train"], label_column)
    labels, class_names = labels_of(saved, label_column)
    first = Column(saved["train"], image_column)[0]
    decoder = decoder_of(first, image_size, channels, max_pixels, min_crop_area)
    parts: dict[str, Any] = {
        name: StoredImages(
            name=f"{path} ({name})",
            source=Column(split, image_column),
            places=torch.arange(len(split)),
            labels=labels[name],
            decoder=decoder,
        )
        for name, split in saved.items()
    }
    return stored_splits(
        f"huggingface/{Path(path).name}",
        with_test(parts, test_fraction),
        class_names,
        val_fraction,
        resident,
        max_resident_bytes,
        mean,
        std,
        augment,
    )


def huggingface_text(
    path: str,
    root: str,
    text_column: str | None,
    label_column: str | None,
    val_fraction: float,
    test_fraction: float,
    tokenizer: Any,
    max_length: int,
) -> Splits:
    """A column of texts and one of classes, as :func:`data.text_csv.text_csv` has them.

    Raises:
        ConfigError: there is no such data set, column or tokenizer, or a setting is wrong.
    """
    saved = load(root, path)
    text_column = column_of(saved["train"], text_column, "text_column", "string")
    label_column = label_of(saved["train"], label_column)
    labels, class_names = labels_of(saved, label_column)
    rows = {
        name: [
            (str(text), class_names[label])
            for text, label in zip(split[text_column], labels[name].tolist(), strict=True)
        ]
        for name, split in saved.items()
    }
    fractions = {"val": val_fraction, "test": test_fraction}
    missing = {name: fractions[name] for name in fractions if name not in rows}
    parts = split_off(rows["train"], missing) | {
        name: part for name, part in rows.items() if name != "train"
    }
    return document_splits(Path(path).name, path, parts, tokenizer, max_length, [])


class Column:
    """A column of images of a saved split, as the bytes or the paths of files.

    They are not decoded by the library, which would take formats that start other programs.
    """

    def __init__(self, split: Any, name: str) -> None:
        from datasets import Image

        self.name = name
        self.split = split.select_columns(name).cast_column(name, Image(decode=False))

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, place: int) -> Any:
        image = self.split[place][self.name]
        return image["bytes"] or image["path"]


def load(root: str, path: str) -> dict[str, Any]:
    """The splits by this program's names; a single one is for training.

    Raises:
        ConfigError: it cannot be read, or has no split for training.
    """
    try:
        from datasets import Dataset, load_from_disk  # costs seconds: only for the runs that use it
    except ImportError as error:
        raise ConfigError("data=huggingface: pip install datasets") from error
    folder = Path(root) / path
    try:
        found = load_from_disk(str(folder))
    except Exception as error:  # whatever the library raises
        raise ConfigError(
            f"data.path={folder} is no data set that save_to_disk has saved: {reason(error)}"
        ) from error
    if isinstance(found, Dataset):
        return {"train": found}
    splits = {own: found[name] for own, names in NAMES.items() for name in names if name in found}
    if "train" not in splits:
        raise ConfigError(f"data.path={folder} has no split train, but {', '.join(found)}")
    return splits


def column_of(split: Any, given: str | None, setting: str, kind: str) -> str:
    """The column ``given``, or the first whose feature is of that kind.

    Raises:
        ConfigError: there is none.
    """
    features = split.features
    if given is not None and given not in features:
        raise ConfigError(f"data.{setting}={given}: the columns are {', '.join(features)}")
    fitting = [
        name
        for name, feature in features.items()
        if kind in (type(feature).__name__, getattr(feature, "dtype", None))
    ]
    if given is None and not fitting:
        raise ConfigError(f"data.{setting}: none of {', '.join(features)} holds {kind}s; name it")
    return given or fitting[0]


def label_of(split: Any, given: str | None) -> str:
    """The column of the classes: by its feature, else ``label``."""
    if given is None and "label" in split.features:
        given = "label"
    return column_of(split, given, "label_column", "ClassLabel")


def labels_of(
    saved: dict[str, Any], column: str
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """The classes of every split, and their names.

    Raises:
        ConfigError: they are neither numbers nor names, or some are missing.
    """
    values = [label for split in saved.values() for label in split[column]]
    try:
        numbers, names = class_numbers(values)
    except ConfigError as error:
        raise ConfigError(f"data.label_column={column}: {error}") from error
    names = tuple(getattr(saved["train"].features[column], "names", names))
    parts = numbers.split([len(split) for split in saved.values()])
    return dict(zip(saved, parts, strict=True)), names
