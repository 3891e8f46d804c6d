"""Arrays from one ``.npz`` file: images or rows of numbers, and what is to be told of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from core.errors import ConfigError, reason
from data.images import Augment, image_splits
from data.splits import Splits, TensorSplit, quantities, stratified_split
from data.tables import TableSpec, numeric_column, table_splits
from data.torchvision_sets import channels_first

SPLITS = ("train", "val", "test")
INPUTS, TARGETS = ("x", "X", "images", "data"), ("y", "Y", "labels", "targets")


def npz(
    path: str,
    root: str,
    x: str | None,
    y: str | None,
    val_fraction: float,
    test_fraction: float,
    class_names: Sequence[str] | None,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    augment: Sequence[Augment] = (),
) -> Splits:
    """Arrays named ``x_train``, ``y_train``, ``x_test``, ... or ``train_images``, ..., or x and y.

    ``x`` are images ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)`` of uint8, or of floats from
    0 to 1, which are rounded to 255 steps; or rows ``(N, columns)``, NaN where a number is missing.
    ``y`` are classes ``(N,)`` or ``(N, 1)`` of integers, or the numbers to predict, of floats.

    Args:
        path: from ``root`` on.
        x, y: names of the arrays, without the split; None: the first of the usual ones.
        val_fraction, test_fraction: of training, where the file has no such arrays; 0: none.

    Raises:
        ConfigError: the file cannot be read, lacks an array, or has one of another kind.
    """
    file = Path(root) / path
    arrays = read(file)
    parts = {}
    unread = dict(arrays)
    for split in SPLITS:
        keys = [key_of(arrays, names, split) for names in (named(x, INPUTS), named(y, TARGETS))]
        if keys[0] is not None and keys[1] is not None:
            parts[split] = (inputs_of(arrays[keys[0]], file), targets_of(arrays[keys[1]], file))
            unread = {key: array for key, array in unread.items() if key not in keys}
    if "train" not in parts:
        raise ConfigError(
            f"data.path={file} needs arrays such as x_train and y_train, or x and y; it has "
            f"{', '.join(arrays)}: name them by data.x and data.y"
        )
    for split, (inputs, targets) in parts.items():
        if len(inputs) != len(targets):
            raise ConfigError(
                f"data.path={file}: there are {len(inputs)} inputs and {len(targets)} targets of "
                f"{split}"
            )
        for own, wanted in zip((inputs, targets), parts["train"], strict=True):
            if own.shape[1:] != wanted.shape[1:]:
                raise ConfigError(
                    f"data.path={file}: a sample of {split} has the shape {tuple(own.shape[1:])}, "
                    f"one of train {tuple(wanted.shape[1:])}"
                )
    parts = split_off(parts, {"val": val_fraction, "test": test_fraction})
    splits = splits_of(file.stem, parts, class_names, mean, std, augment)
    if unread:
        splits.notes.append(
            f"data.path={file}: {', '.join(unread)} are not used; those of a split are called "
            "x_val and y_val, or alike"
        )
    return splits


def read(file: Path) -> dict[str, numpy.ndarray]:
    """Raises: ConfigError: the file cannot be read, or holds Python objects."""
    try:
        with numpy.load(file, allow_pickle=False) as content:
            return dict(content)
    except Exception as error:  # whatever a damaged file raises
        raise ConfigError(f"data.path={file} cannot be read: {reason(error)}") from error


def named(given: str | None, usual: Sequence[str]) -> Sequence[str]:
    return usual if given is None else (given,)


def key_of(arrays: dict[str, Any], names: Sequence[str], split: str) -> str | None:
    """The first of the names of a split's array that there is; None: there is none."""
    for name in names:
        for key in (f"{name}_{split}", f"{split}_{name}", *([name] if split == "train" else ())):
            if key in arrays:
                return key
    return None


def inputs_of(values: numpy.ndarray, file: Path) -> Tensor:
    """uint8 images ``(N, C, H, W)`` or float32 rows ``(N, columns)``."""
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
    """int64 classes ``(N,)`` or float32 ``(N, quantities)``."""
    if values.ndim == 2 and values.shape[1] == 1 and values.dtype.kind in "bui":
        values = values[:, 0]
    if values.dtype.kind in "bui" and values.ndim == 1:
        return torch.from_numpy(values.astype(numpy.int64))
    if values.dtype.kind == "f" and values.ndim in (1, 2):
        return torch.from_numpy(values.astype(numpy.float32)).view(len(values), -1)
    raise ConfigError(
        f"data.path={file}: targets are {values.dtype} of shape {values.shape}; they should be "
        "classes, integers (N,), or the numbers to predict, floats (N,) or (N, quantities)"
    )


Arrays = dict[str, tuple[Tensor, Tensor]]


def split_off(parts: Arrays, fractions: dict[str, float]) -> Arrays:
    """The splits, with those that are missing taken from training, every class alike."""
    missing = {name: part for name, part in fractions.items() if name not in parts}
    for name, fraction in missing.items():
        if not 0 <= fraction < 1:
            raise ConfigError(f"data.{name}_fraction={fraction} should be at least 0 and below 1")
    rest = 1 - sum(missing.values())
    inputs, targets = parts["train"]
    if round(rest * len(inputs)) < 1:
        raise ConfigError("data.val_fraction and data.test_fraction leave nothing to train on")
    classes = targets if targets.ndim == 1 else torch.zeros(len(targets))
    chosen = stratified_split(classes, (rest, *missing.values()))
    taken = {
        name: (inputs[part], targets[part])
        for name, part in zip(("train", *missing), chosen, strict=True)
        if len(part)
    }
    return parts | taken


def splits_of(
    name: str, parts: Arrays, class_names: Sequence[str] | None, mean: Any, std: Any, augment: Any
) -> Splits:
    """Splits of images or of a table, with classes or quantities."""
    inputs, targets = parts["train"]
    if targets.ndim == 1:
        count = max(int(targets.max()) + 1 for _, targets in parts.values())
        if class_names is not None and len(class_names) < count:
            raise ConfigError(f"data.class_names has {len(class_names)} names for {count} classes")
        names, wanted = tuple(class_names or map(str, range(count))), None
    else:
        numbered = [f"y{place}" for place in range(targets.shape[1])]
        names, wanted = (), quantities(numbered, [""] * len(numbered), targets)
    if inputs.ndim == 2:
        columns = tuple(numeric_column(f"x{i}", values) for i, values in enumerate(inputs.T))
        spec = TableSpec(name=name, columns=columns, class_names=names, quantities=wanted)
        return table_splits(spec, parts, [])
    splits = {split: TensorSplit(*tensors) for split, tensors in parts.items()}
    return image_splits(
        name,
        splits["train"],
        splits.get("val"),
        splits.get("test"),
        names,
        mean,
        std,
        augment,
        quantities=wanted,
    )
