"""WebDataset shards: tar files with ``000123.jpg`` next to ``000123.cls``.

Shards are indexed once by their headers, and samples are then read by offset. So an epoch is
shuffled globally, and split over processes and resumed like any other data set.
"""

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import ConfigError, reason
from core.schema import BelowOne
from data.cache import cached_tensors
from data.image_folder import SUFFIXES
from data.splits import Splits
from data.stored_images import class_numbers, files_digest, image_settings

LABELS = (".cls", ".json", ".txt")


def webdataset(
    root: str,
    train: str,
    val: str,
    test: str,
    label_key: str,
    class_names: Sequence[str] | None,
    test_fraction: BelowOne,
    **settings: Any,
) -> Splits:
    """Image classification from the shards in ``root``.

    A class is a number or a name in ``KEY.cls`` or ``KEY.txt``, or an entry of ``KEY.json``.

    Args:
        train, val, test: glob patterns of shard names, such as ``train-*.tar``.
        label_key: key of the class in a JSON file.
        class_names: names for numbered classes; None: the numbers, or the names in the shards.
        test_fraction: share of training, if no shard matches ``test``.
        settings: see :class:`data.stored_images.ImageSettings`.

    Raises:
        ConfigError: if there are no shards, one is damaged or compressed, a sample lacks its image
            or class, or a setting is wrong.
    """
    images = image_settings(settings, webdataset)
    folder = Path(root)
    patterns = {"train": train, "val": val, "test": test}
    paths = {name: sorted(folder.glob(pattern)) for name, pattern in patterns.items() if pattern}
    if not paths.get("train"):
        raise ConfigError(
            f"data.root={root}: no shards match data.train={train}; copy remote ones here first"
        )
    sources, given = {}, {}
    for name, files in paths.items():
        if files:
            where, given[name] = index(files, label_key, folder / f".index_{name}.pt")
            sources[name] = partial(content_at, files, where)
    labels, names = class_numbers(given, "data.root")
    if class_names is not None and len(class_names) < len(names):
        raise ConfigError(f"data.class_names has {len(class_names)} names for {len(names)} classes")
    parts = images.loaded(images.stored(root, sources, labels), test_fraction)
    return images.splits(f"webdataset/{folder.resolve().name}", parts, tuple(class_names or names))


def index(files: Sequence[Path], label_key: str, cache: Path) -> tuple[Tensor, list[int | str]]:
    """Shard, offset and size of every image ``(N, 3)``, and its label as in the file.

    Args:
        cache: file for the index, valid for as long as no shard changes.

    Raises:
        ConfigError: if a shard is damaged or compressed, or a sample lacks its image or label.
    """
    digest = files_digest({"": list(map(str, files))}, cache.parent, label_key)
    where, labels = cached_tensors(cache, digest, lambda: index_of(files, label_key))
    return where, json.loads(labels.numpy().tobytes())


def content_at(files: Sequence[Path], where: Tensor, place: int) -> bytes:
    """The encoded image at a place in the index ``where``."""
    shard, offset, size = where[place].tolist()
    with open(files[shard], "rb") as file:
        return os.pread(file.fileno(), size, offset)


def index_of(files: Sequence[Path], label_key: str) -> tuple[Tensor, Tensor]:
    """Shard, offset and size of every image ``(N, 3)``, and the labels as JSON bytes (uint8)."""
    where, labels = [], []
    for number, file in enumerate(files):
        for image, label in samples_of(file, label_key):
            where.append((number, image.offset_data, image.size))
            labels.append(label)
    if not where:
        raise ConfigError(f"{files[0]} has no samples, each an image and its class")
    text = bytearray(json.dumps(labels).encode())
    return torch.tensor(where), torch.frombuffer(text, dtype=torch.uint8)


def samples_of(file: Path, label_key: str) -> Iterator[tuple[tarfile.TarInfo, int | str]]:
    """Yield the tar member and the label of each image of a shard."""
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int | str] = {}
    try:
        with tarfile.open(file, "r:") as shard:
            for member in filter(tarfile.TarInfo.isfile, shard):
                folder, _, name = member.name.rpartition("/")
                key, _, suffix = name.partition(".")
                key, suffix = f"{folder}/{key}", f".{suffix.lower()}"
                if suffix in SUFFIXES:
                    images[key] = member
                elif suffix in LABELS and (content := shard.extractfile(member)):
                    where = f"{file}: {member.name}"
                    labels[key] = label_in(content.read().decode(), suffix, label_key, where)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read the shard {file}: {reason(error)} (shards are tar files, not compressed)"
        ) from error
    for key in images.keys() ^ labels.keys():
        lacks = "class: .cls, .txt or .json" if key in images else "image"
        raise ConfigError(f"{file}: the sample {key.lstrip('/')} has no {lacks}")
    for key, image in images.items():
        yield image, labels[key]


def label_in(content: str, suffix: str, label_key: str, where: str) -> int | str:
    """The label as an integer if it is one, else as a name."""
    label: Any = content.strip()
    if suffix == ".json":
        entries = json.loads(content)
        if not isinstance(entries, dict) or label_key not in entries:
            raise ConfigError(f"{where} has no entry data.label_key={label_key}")
        label = entries[label_key]
    return int(label) if isinstance(label, str) and label.lstrip("-").isdecimal() else label
