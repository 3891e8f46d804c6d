"""Image folders: ``train/<class>/*``, and optionally ``val/`` and ``test/``.

Sets that fit in memory are decoded once and cached as a tensor file; larger ones are streamed.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import ConfigError, reason
from data.held_out import SPLITS
from data.splits import Splits
from data.stored_images import StoredImages, image_settings, status

SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
    ".tif", ".tiff", ".webp",
)  # fmt: skip


def image_folder(root: str, **settings: Any) -> Splits:
    """Image classification from ``root``; the folders of ``train/`` are the classes.

    Args:
        settings: see :class:`data.stored_images.ImageSettings`.

    Raises:
        ConfigError: if a folder is missing or empty, an image is unreadable, or a setting is wrong.
    """
    images = image_settings(settings, image_folder)
    folder = Path(root)
    name = f"image_folder/{folder.resolve().name}"
    class_names = names_of_classes(folder / "train")
    skipped: Counter[str] = Counter()
    files = {
        split: list_files(folder / split, class_names, skipped)
        for split in SPLITS
        if split == "train" or (folder / split).is_dir()
    }
    decoder = images.decoder(files["train"][0][0])
    parts = {
        split: ImageFiles(split, paths.__getitem__, torch.arange(len(paths)), labels, decoder)
        for split, (paths, labels) in files.items()
    }
    cache = folder / f".images_{decoder.shape}.pt"
    splits = images.splits(name, images.loaded(parts, cache=cache), class_names)
    if skipped:
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(skipped.items()))
        splits.notes.append(f"data.root: ignored files, not images or not in a class: {kinds}")
    if others := [
        path.name for path in visible(folder) if path.is_dir() and path.name not in SPLITS
    ]:
        splits.notes.append(
            f"data.root: ignored folders: {', '.join(others)} ({', '.join(SPLITS)} are used)"
        )
    return splits


@dataclass(frozen=True)
class ImageFiles(StoredImages):
    """Images whose ``source`` gives file paths."""

    @property
    def files(self) -> list[str]:
        return [self.source(place) for place in self.places.tolist()]

    @property
    def decoding(self) -> str:
        return str(self.decoder)

    def identity(self) -> tuple[Tensor, ...]:
        """The first and last image, and the labels, sizes and relative names of all files."""
        paths = self.files
        if not paths:
            return ()
        above = len(os.path.commonpath([paths[0], paths[-1]]))
        names = os.fsencode("\n".join(path[above:] for path in paths))
        listing = torch.frombuffer(bytearray(names), dtype=torch.uint8)
        sizes = torch.tensor([status(path).st_size for path in paths])
        return (*self[0], *self[len(self) - 1], listing, self.labels, sizes)


def names_of_classes(train: Path) -> list[str]:
    if not train.is_dir():
        raise ConfigError(f"data.root: there is no folder {train}")
    above = {train.resolve(), *train.resolve().parents}
    folders = [path for path in visible(train) if path.is_dir()]
    names = [folder.name for folder in folders if folder.resolve() not in above]
    if not names:
        raise ConfigError(f"data.root: {train} has no class folders")
    return names


def list_files(
    folder: Path, class_names: Sequence[str], skipped: Counter[str]
) -> tuple[list[str], Tensor]:
    """Paths and labels of a split's images, sorted by class and name.

    Args:
        skipped: counter to which the suffixes of all other files are added.
    """
    loose = [path for path in visible(folder) if not path.is_dir()]
    skipped.update(file.suffix or file.name for file in loose)
    unknown = set(names_of_classes(folder)) - set(class_names)
    if unknown:
        raise ConfigError(
            f"data.root: {folder / min(unknown)} is a class that train/ does not have"
        )
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        under = list(files_under(folder / name)) if (folder / name).is_dir() else []
        images = list(filter(is_image, under))
        skipped.update(file.suffix or file.name for file in under if not is_image(file))
        if not images and folder.name == "train":
            raise ConfigError(f"data.root: {folder / name} has no images")
        paths += map(str, images)
        labels += [label] * len(images)
    if not paths:
        raise ConfigError(f"data.root: {folder} has no images")
    return paths, torch.tensor(labels)


def is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES


def files_under(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """All files below ``folder``, sorted by name, without hidden ones.

    Args:
        above: parents of ``folder``; a link back to one of them is not followed.

    Raises:
        ConfigError: if a folder cannot be read.
    """
    real = folder.resolve()
    above |= {real, *real.parents}
    for path in visible(folder):
        if path.is_dir():
            if path.resolve() not in above:
                yield from files_under(path, above)
        else:
            yield path


def visible(folder: Path) -> list[Path]:
    """The entries of a folder, sorted by name, without hidden ones."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ConfigError(f"cannot read the folder {folder}: {reason(error)}") from error
