"""Data sets in one ``.npz`` file: images or table rows, and their targets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from core.errors import ConfigError, reason
from core.schema import BelowOne
from data.held_out import SPLITS, split_off, train_val_test
from data.images import Augment, image_splits
from data.splits import Splits, TensorSplit, quantities
from data.tables import TableSpec, numeric_columns, table_splits
from data.torchvision_sets import channels_first

INPUTS, TARGETS = ("x", "X", "images", "data"), ("y", "Y", "labels", "targets")


def npz(
    path: str,
    root: str,
    x: str | None,
    y: str | None,
    val_fraction: BelowOne,
    test_fraction: BelowOne,
    class_names: Sequence[str] | None,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    augment: Sequence[Augment] = (),
) -> Splits:
    """Splits from arrays ``x_train``, ``y_train``, ...; ``train_images``, ...; or ``x`` and ``y``.

    ``x`` holds images ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``, uint8 or floats in
    [0, 1] to be rounded to uint8; or table rows ``(N, columns)``, NaN where a number is missing.
    ``y`` holds integer classes ``(N,)`` or ``(N, 1)``; labels ``(N, labels)`` of 0 and 1
    (multi-label); or floats to predict ``(N,)`` or ``(N, quantities)``.

    Args:
        path: file, relative to ``root``.
        x, y: names of the arrays, without the split; None: the first usual name that exists.
        val_fraction, test_fraction: share of training if the file has no such split; 0: none.

    Raises:
        ConfigError: if the file cannot be read, lacks an array, or has one of an unsupported kind.
    """
    file = Path(root) / path
    arrays = read(file)
    parts: dict[str, TensorSplit] = {}
    used: set[str] = set()
    for split in SPLITS:
        x_key, y_key = key_of(arrays, x, INPUTS, split), key_of(arrays, y, TARGETS, split)
        if x_key is not None and y_key is not None:
            tensors = inputs_of(arrays[x_key], file), targets_of(arrays[y_key], file)
            check_shapes(split, tensors, parts.get("train"), file)
            parts[split] = TensorSplit(*tensors)
            used |= {x_key, y_key}
    if "train" not in parts:
        raise ConfigError(
            f"data.path={file} needs arrays such as x_train and y_train, or x and y; it has "
            f"{', '.join(arrays)}: name yours by data.x and data.y"
        )
    parts = split_off(parts, {"val": val_fraction, "test": test_fraction})
    splits = splits_of(file.stem, parts, class_names, mean, std, augment)
    if unused := [key for key in arrays if key not in used]:
        splits.notes.append(
            f"data.path={file}: {', '.join(unused)} are not used; arrays of a split are named "
            "like x_val and y_val"
        )
    return splits


def read(file: Path) -> dict[str, numpy.ndarray]:
    """All arrays; raises ConfigError if the file cannot be read or holds Python objects."""
    try:
        with numpy.load(file, allow_pickle=False) as content:
            return dict(content)
    except Exception as error:  # a damaged file can raise anything
        raise ConfigError(f"data.path={file} cannot be read: {reason(error)}") from error


def key_of(
    arrays: dict[str, Any], given: str | None, usual: Sequence[str], split: str
) -> str | None:
    """The first key that exists for an array of the split; None: there is none."""
    for name in usual if given is None else (given,):
        for key in (f"{name}_{split}", f"{split}_{name}", *([name] if split == "train" else ())):
            if key in arrays:
                return key
    return None


def inputs_of(values: numpy.ndarray, file: Path) -> Tensor:
    """The inputs as uint8 images ``(N, C, H, W)`` or float32 rows ``(N, columns)``."""
    found = f"data.path={file}: inputs are {values.dtype} of shape {values.shape}"
    if values.dtype.kind not in "buif" or values.ndim not in (2, 3, 4) or not len(values):
        raise ConfigError(f"{found}; they should be images or rows of numbers")
    if values.ndim == 2:
        return torch.from_numpy(values.astype(numpy.float32))
    if values.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1:
        values = (values * 255).round().astype(numpy.uint8)
    if values.dtype != numpy.uint8:
        raise ConfigError(
            f"{found} from {values.min():.4g} to {values.max():.4g}; images should be uint8, or "
            "floats from 0 to 1"
        )
    return channels_first(torch.from_numpy(values))


def targets_of(values: numpy.ndarray, file: Path) -> Tensor:
    """Targets as int64 ``(N,)``, uint8 labels ``(N, labels)`` or float32 ``(N, quantities)``."""
    is_whole = values.dtype.kind in "bui"
    if is_whole and values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if is_whole and values.ndim == 1:
        return torch.from_numpy(values.astype(numpy.int64))
    if is_whole and values.ndim == 2 and ((values == 0) | (values == 1)).all():
        return torch.from_numpy(values.astype(numpy.uint8))
    if values.dtype.kind == "f" and values.ndim in (1, 2):
        return torch.from_numpy(values.astype(numpy.float32)).view(len(values), -1)
    raise ConfigError(
        f"data.path={file}: targets are {values.dtype} of shape {values.shape}; they should be "
        "classes, integers (N,); labels that hold or not, integers 0 and 1 (N, labels); or the "
        "numbers to predict, floats (N,) or (N, quantities)"
    )


def check_shapes(
    split: str, tensors: tuple[Tensor, Tensor], train: TensorSplit | None, file: Path
) -> None:
    """Raises: ConfigError: if a split's arrays do not match each other or the training split."""
    inputs, targets = tensors
    if len(inputs) != len(targets):
        raise ConfigError(
            f"data.path={file}: there are {len(inputs)} inputs and {len(targets)} targets of "
            f"{split}"
        )
    for tensor, expected in zip(tensors, train.tensors if train else tensors, strict=True):
        if tensor.shape[1:] != expected.shape[1:]:
            raise ConfigError(
                f"data.path={file}: samples of {split} have the shape {tuple(tensor.shape[1:])}, "
                f"those of train {tuple(expected.shape[1:])}"
            )


def splits_of(
    name: str,
    parts: dict[str, TensorSplit],
    class_names: Sequence[str] | None,
    mean: Any,
    std: Any,
    augment: Any,
) -> Splits:
    """The data set: images or a table, with classes, labels or quantities as targets."""
    inputs, targets = parts["train"].tensors
    names: tuple[str, ...] = ()
    wanted = None
    if targets.is_floating_point():
        numbered = [f"y{place}" for place in range(targets.shape[1])]
        wanted = quantities(numbered, [""] * len(numbered), targets)
    else:
        count = max(int(part.tensors[1].max()) + 1 for part in parts.values())
        count = count if targets.ndim == 1 else targets.shape[1]
        if class_names is not None and len(class_names) < count:
            raise ConfigError(f"data.class_names has {len(class_names)} names for {count} classes")
        names = tuple(class_names or map(str, range(count)))
    if inputs.ndim == 2:
        columns = numeric_columns([f"x{i}" for i in range(inputs.shape[1])], inputs)
        spec = TableSpec(name=name, columns=columns, class_names=names, quantities=wanted)
        return table_splits(spec, parts, [])
    return image_splits(name, *train_val_test(parts), names, mean, std, augment, quantities=wanted)
