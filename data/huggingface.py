"""Data sets of Hugging Face's ``datasets`` that ``save_to_disk`` has saved.

They are read as they are: nothing is downloaded, and no code that comes with a data set is run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from core.errors import ConfigError, reason
from data.splits import Splits
from data.stored_images import Source, class_numbers, image_settings
from data.text_csv import document_splits

NAMES = {"train": ("train",), "val": ("validation", "val", "valid", "dev"), "test": ("test",)}


def huggingface_images(
    path: str,
    root: str,
    image_column: str | None,
    label_column: str | None,
    test_fraction: float,
    **settings: Any,
) -> Splits:
    """A column of images and one of classes; decoded as those of an image folder.

    Args:
        path: the folder, from ``root`` on.
        image_column, label_column: null: the first of their kind.
        test_fraction: of ``train``, where there is no such split.
        settings: see :class:`data.stored_images.ImageSettings`.

    Raises:
        ConfigError: there is no such data set or column, or a setting is wrong.
    """
    images = image_settings(settings, huggingface_images)
    saved = load(root, path)
    image_column = column_of(saved["train"], image_column, "image_column", "Image")
    labels, class_names = labels_of(saved, label_column)
    sources: dict[str, Source] = {
        name: Column(split, image_column) for name, split in saved.items()
    }
    parts = images.loaded(images.stored(path, sources, labels), test_fraction)
    return images.splits(f"huggingface/{Path(path).name}", parts, class_names)


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


def labels_of(
    saved: dict[str, Any], given: str | None
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The classes of every split, and their names: of the column ``given``, else of ``label``,
    else of the first column of classes.

    Raises:
        ConfigError: they are neither numbers nor names, or some are missing.
    """
    features = saved["train"].features
    if given is None and "label" in features:
        given = "label"
    column = column_of(saved["train"], given, "label_column", "ClassLabel")
    values: dict[str, Sequence[Any]] = {name: list(split[column]) for name, split in saved.items()}
    numbers, names = class_numbers(values, f"data.label_column={column}")
    return numbers, tuple(getattr(features[column], "names", names))
