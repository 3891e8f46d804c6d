"""Segmentation folders: ``train/images/*`` and ``train/masks/*``, likewise for val and test.

Or ``images`` and ``masks`` alone. Sets that fit in memory are decoded once, see
:mod:`data.image_folder`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor

from core.errors import ConfigError
from data.decode import Box, Decoder, open_image, reading
from data.held_out import SPLITS
from data.image_folder import files_under, is_image
from data.splits import UNLABELLED, Batch, Splits, StreamedSplit
from data.stored_images import image_settings, status

MODES = ("1", "L", "P", "I;16", "I")


def mask_folder(
    root: str,
    class_names: Sequence[str] | None,
    mask_values: Sequence[int] | None,
    **settings: Any,
) -> Splits:
    """Semantic segmentation: the images under ``root``, each with a mask of its name and size.

    A mask is a grey or indexed image, such as a PNG, with one value per class.

    Args:
        class_names: null: the numbers of the classes that occur; required if masks are streamed.
        mask_values: pixel value of each class, in the order of the names; all others are
            unlabelled. null: the class number, with 255 for unlabelled pixels.
        settings: see :class:`data.stored_images.ImageSettings`.

    Raises:
        ConfigError: if a folder or a mask is missing, a mask differs from its image in size or has
            an unknown class, a file cannot be read, or a setting is wrong.
    """
    images = image_settings(settings, mask_folder)
    folder = Path(root)
    notes: list[str] = []
    split_pairs = {split: pairs(part, notes) for split, part in folders(folder).items()}
    names = tuple(map(str, class_names)) if class_names else None
    decoder = images.decoder(split_pairs["train"][0][0])
    values = None if mask_values is None else checked_values(mask_values, names)
    streamed = {
        split: ImagesWithMasks(files, decoder, values, len(names) if names else UNLABELLED)
        for split, files in split_pairs.items()
    }
    parts = images.loaded(streamed, cache=folder / f".masks_{decoder.shape}.pt")
    if names is None:
        if isinstance(parts["train"], StreamedSplit):
            raise ConfigError("data.class_names should name the classes where masks are streamed")
        masks = parts["train"].tensors[1]
        labelled = masks[masks != UNLABELLED]
        names = tuple(map(str, range(int(labelled.max()) + 1))) if len(labelled) else ("0",)
    if len(names) < 2:
        raise ConfigError(
            "data.root: the masks have only one class; if their values are 0 and 255, set "
            "data.mask_values=[0,255]"
        )
    splits = images.splits(f"mask_folder/{folder.resolve().name}", parts, names)
    splits.notes += notes
    return splits


def folders(root: Path) -> dict[str, Path]:
    """The folder of each split that exists."""
    if (root / "images").is_dir():
        return {"train": root}
    splits = {name: root / name for name in SPLITS if (root / name / "images").is_dir()}
    if "train" not in splits:
        raise ConfigError(f"data.root: there is no folder {root / 'train' / 'images'}")
    return splits


def pairs(folder: Path, notes: list[str]) -> list[tuple[str, str]]:
    """The paths of every image of a split and of its mask, sorted by name.

    Raises:
        ConfigError: if there are no images, or one has no mask.
    """
    images, masks = (
        {
            file.relative_to(folder / kind).with_suffix(""): file
            for file in files_under(folder / kind)
            if is_image(file)
        }
        for kind in ("images", "masks")
    )
    if not images:
        raise ConfigError(f"data.root: {folder / 'images'} has no images")
    for name, file in images.items():
        if name not in masks:
            raise ConfigError(f"data.root: {file} has no mask {folder / 'masks' / name}.png")
    if unused := len(masks.keys() - images.keys()):
        notes.append(f"data.root: {unused:,} masks in {folder / 'masks'} have no image")
    return [(str(file), str(masks[name])) for name, file in images.items()]


def checked_values(values: Sequence[int], names: Sequence[str] | None) -> tuple[int, ...]:
    are_right = all(type(value) is int and 0 <= value < 65536 for value in values)
    if not are_right or len(set(values)) != len(values) or len(values) != len(names or values):
        raise ConfigError(
            f"data.mask_values={values} should be distinct numbers from 0 to 65535, one for each "
            "of data.class_names"
        )
    return tuple(values)


@dataclass(frozen=True)
class ImagesWithMasks(StreamedSplit):
    """Image files and their masks; random crops in training, centred crops in evaluation.

    Attributes:
        pairs: paths of each image and its mask.
        values: pixel value of each class in the masks; None: the class number.
        num_classes: masks with a higher class number are rejected.
    """

    pairs: list[tuple[str, str]]
    decoder: Decoder
    values: tuple[int, ...] | None
    num_classes: int

    def __len__(self) -> int:
        return len(self.pairs)

    def sample(self, index: int, generator: torch.Generator | None) -> Batch:
        """Image ``(C, H, W)`` and mask ``(H, W)``, both uint8, with the same crop."""
        image, mask = self.pairs[index]
        pixels, size, box = self.decoder.decode(image, generator)
        with reading(mask), open_image(mask) as opened:
            check(mask, opened, size)
            return pixels, self.classes(mask, opened, box)

    def classes(self, file: str, mask: Image.Image, box: Box) -> Tensor:
        height, width = self.decoder.size
        resized = mask.resize((width, height), Image.Resampling.NEAREST, box)
        pixels = torch.from_numpy(numpy.array(resized).astype(numpy.int64))
        if self.values is None:
            wrong = (pixels >= self.num_classes) & (pixels != UNLABELLED)
            if wrong.any():
                raise ConfigError(
                    f"the mask {file} has a class {pixels[wrong][0]}; data.class_names has "
                    f"{self.num_classes}, from 0 on, and {UNLABELLED} is unlabelled; for other "
                    "values set data.mask_values"
                )
            return pixels.to(torch.uint8)
        classes = torch.full_like(pixels, UNLABELLED, dtype=torch.uint8)
        for number, value in enumerate(self.values):
            classes[pixels == value] = number
        return classes

    def take(self, indices: Tensor) -> "ImagesWithMasks":
        return replace(self, pairs=[self.pairs[i] for i in indices.tolist()])

    @property
    def files(self) -> list[str]:
        """All image paths, then all mask paths."""
        return [files[kind] for kind in (0, 1) for files in self.pairs]

    @property
    def decoding(self) -> str:
        return f"{self.decoder} {self.values} {self.num_classes}"

    def identity(self) -> tuple[Tensor, ...]:
        """The first and last sample, and the sizes of all files."""
        sizes = torch.tensor([status(path).st_size for path in self.files])
        return (*super().identity(), sizes)


def check(file: str, mask: Image.Image, size: tuple[int, int]) -> None:
    """Raises: ConfigError: if the mask differs from its image in size or is not grey or indexed."""
    if mask.size != size:
        raise ConfigError(
            f"the mask {file} is {mask.width}x{mask.height}, its image {size[0]}x{size[1]}"
        )
    if mask.mode not in MODES:
        raise ConfigError(
            f"the mask {file} has {mask.mode} pixels: it should be grey or indexed, with one "
            "value per class"
        )
