"""Folders of images: ``train/<class>/*``, and ``val/`` and ``test/`` where there are such.

Sets that fit in memory are decoded once and kept as a tensor file; larger ones are streamed.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import PIL
import torch
from torch import Tensor

from core.errors import ConfigError, reason
from data.cache import fingerprinted
from data.decode import VERSION, Decoder, open_image, unreadable, upright_size
from data.images import Augment, as_size
from data.splits import Splits, TensorSplit
from data.stored_images import check, decode_all, stored_splits
from data.streamed_images import StreamedImages, status

SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
    ".tif", ".tiff", ".webp",
)  # fmt: skip

SPLITS = ("train", "val", "test")


def image_folder(
    root: str,
    image_size: Any,
    channels: int,
    val_fraction: float,
    resident: Any,
    max_resident_bytes: int,
    max_pixels: int,
    min_crop_area: float,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    augment: Sequence[Augment] = (),
) -> Splits:
    """The images under ``root``; the classes are the folders of ``train/``.

    Args:
        image_size: height and width, or one number for both; null: all images have the same.
        channels: 1 or 3.
        val_fraction: share of ``train/`` for validation where there is no ``val/``.
        resident: ``true`` to decode all images once, ``false`` to stream them, ``auto`` to choose
            by ``max_resident_bytes``.
        max_pixels, min_crop_area: see :class:`data.decode.Decoder`.

    Raises:
        ConfigError: a folder is missing or empty, an image cannot be read, or a setting is wrong.
    """
    check(channels, val_fraction, resident, min_crop_area)
    folder = Path(root)
    class_names = names_of_classes(folder / "train")
    left_out: Counter[str] = Counter()
    files = {
        name: list_files(folder / name, class_names, left_out)
        for name in SPLITS
        if name == "train" or (folder / name).is_dir()
    }
    first = files["train"][0][0]
    size = as_size(image_size) if image_size is not None else size_of(first)
    decoder = Decoder(size, channels, image_size is None, max_pixels, min_crop_area)
    splits: dict[str, Any] = {
        name: StreamedImages(paths, labels, decoder) for name, (paths, labels) in files.items()
    }
    built = stored_splits(
        f"image_folder/{folder.resolve().name}",
        splits,
        class_names,
        val_fraction,
        resident,
        max_resident_bytes,
        mean,
        std,
        augment,
        in_memory=lambda parts: in_memory(parts, folder),
    )
    if left_out:
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(left_out.items()))
        built.notes.append(f"data.root: left out, no images by name or in no class: {kinds}")
    if others := [
        path.name for path in visible(folder) if path.is_dir() and path.name not in SPLITS
    ]:
        built.notes.append(
            f"data.root: the folders {', '.join(others)} are not used, but {', '.join(SPLITS)}"
        )
    return built


def names_of_classes(train: Path) -> list[str]:
    if not train.is_dir():
        raise ConfigError(f"data.root: there is no folder {train}")
    above = {train.resolve(), *train.resolve().parents}
    folders = [path for path in visible(train) if path.is_dir()]
    names = [folder.name for folder in folders if folder.resolve() not in above]
    if not names:
        raise ConfigError(f"data.root: {train} has no folders, one for each class")
    return names


def list_files(
    folder: Path, class_names: Sequence[str], left_out: Counter[str]
) -> tuple[list[str], Tensor]:
    """Paths and labels of the images of a split, by class and name.

    Args:
        left_out: counts the suffixes of the other files.
    """
    loose = [path for path in visible(folder) if not path.is_dir()]
    left_out.update(file.suffix or file.name for file in loose)
    unknown = set(names_of_classes(folder)) - set(class_names)
    if unknown:
        raise ConfigError(f"data.root: {folder / min(unknown)} is a class that train/ has not")
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        under = list(files_under(folder / name)) if (folder / name).is_dir() else []
        found = list(filter(is_image, under))
        left_out.update(file.suffix or file.name for file in under if not is_image(file))
        if not found and folder.name == "train":
            raise ConfigError(f"data.root: {folder / name} has no images")
        paths += map(str, found)
        labels += [label] * len(found)
    if not paths:
        raise ConfigError(f"data.root: {folder} has no images")
    return paths, torch.tensor(labels)


def is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES


def files_under(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Every file in ``folder`` and below, in the order of the names, without hidden ones.

    Args:
        above: the folders on the way here; a link back to one of them is not followed.

    Raises:
        ConfigError: a folder cannot be read.
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
    """What is in a folder, in the order of the names, without hidden files and folders."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ConfigError(f"cannot read the folder {folder}: {reason(error)}") from error


def size_of(file: str) -> tuple[int, int]:
    """Height and width of an image, without decoding it."""
    try:
        with open_image(file) as image:
            width, height = upright_size(image)
    except Exception as error:  # whatever PIL's many decoders raise
        raise unreadable(file, error) from error
    return height, width


def in_memory(parts: dict[str, StreamedImages], root: Path) -> dict[str, TensorSplit]:
    """All images decoded, or as they were decoded before if neither files nor settings changed."""
    decoder = parts["train"].decoder
    paths = {name: part.paths for name, part in parts.items()}
    shape = "x".join(map(str, (decoder.channels, *decoder.size)))
    images = fingerprinted(
        root / f".images_{shape}.pt",
        files_digest(paths, root, decoder),
        lambda: tuple(decode_all(part.image, len(part), decoder) for part in parts.values()),
    )
    return {
        name: TensorSplit(pixels, part.labels)
        for (name, part), pixels in zip(parts.items(), images, strict=True)
    }


def files_digest(paths: dict[str, list[str]], root: Path, decoder: Any) -> str:
    """Of the files' names, sizes and times of change, and of how they are decoded."""
    digest = hashlib.sha256(f"{VERSION} {PIL.__version__} {decoder}".encode())
    for name, files in paths.items():
        for path in files:
            found = status(path)
            stamp = f"{found.st_size} {found.st_mtime_ns}"
            digest.update(os.fsencode(f"{name} {os.path.relpath(path, root)} {stamp}\n"))
    return digest.hexdigest()
