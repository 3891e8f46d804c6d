"""Folders of images and masks: ``train/images/*`` and ``train/masks/*``, alike for val and test.

Or ``images`` and ``masks`` alone. Sets that fit in memory are decoded once, see
:mod:`data.image_folder`.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor

from core.errors import ConfigError
from data.cache import fingerprinted
from data.decode import Box, Decoder, unreadable
from data.image_folder import SPLITS, check, files_digest, files_under, is_image, size_of
from data.images import Augment, as_size, image_splits
from data.splits import UNLABELLED, Batch, Splits, StreamedSplit, TensorSplit, stratified_split
from data.streamed_images import status

MODES = ("1", "L", "P", "I;16", "I")


def mask_folder(
    root: str,
    class_names: Sequence[str] | None,
    mask_values: Sequence[int] | None,
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
    """The images under ``root``, each with a mask of its name and size.

    A mask is a grey or indexed image, such as a PNG, of one value for each class.

    Args:
        class_names: null: the numbers of the classes that occur; needed where masks are streamed.
        mask_values: the value of each class, in the order of the names; any other is unlabelled.
            null: 0 for the first class, and so on; 255 is unlabelled.
        image_size, channels, val_fraction, resident, max_resident_bytes, max_pixels, min_crop_area:
            see :func:`data.image_folder.image_folder`.

    Raises:
        ConfigError: a folder or a mask is missing, a mask has another size than its image or other
            classes, a file cannot be read, or a setting is wrong.
    """
    check(channels, val_fraction, resident, min_crop_area)
    folder = Path(root)
    notes: list[str] = []
    files = {name: pairs(part, notes) for name, part in folders(folder).items()}
    size = as_size(image_size) if image_size is not None else size_of(files["train"][0][0])
    names = tuple(map(str, class_names)) if class_names else None
    reader = PairReader(
        Decoder(size, channels, image_size is None, max_pixels, min_crop_area),
        None if mask_values is None else checked_values(mask_values, names),
        len(names) if names else UNLABELLED,
    )
    parts = {
        name: StreamedPairs([image for image, _ in found], [mask for _, mask in found], reader)
        for name, found in files.items()
    }
    if "val" not in parts:
        indices = stratified_split(
            torch.zeros(len(parts["train"])), (1 - val_fraction, val_fraction)
        )
        train = parts["train"]
        parts["train"], parts["val"] = map(train.take, indices)
    num_bytes = sum(map(len, parts.values())) * (channels + 1) * size[0] * size[1]
    splits: dict[str, Any] = dict(parts)
    if resident is True or (resident == "auto" and num_bytes <= max_resident_bytes):
        splits = in_memory(parts, folder)
    elif names is None:
        raise ConfigError("data.class_names should name the classes where masks are streamed")
    if names is None:
        masks = splits["train"].tensors[1]
        labelled = masks[masks != UNLABELLED]
        names = tuple(map(str, range(int(labelled.max()) + 1))) if len(labelled) else ("0",)
    if len(names) < 2:
        raise ConfigError(
            "data.root: the masks have one class; where they are of 0 and 255, give "
            "data.mask_values=[0,255]"
        )
    built = image_splits(
        f"mask_folder/{folder.resolve().name}",
        splits["train"],
        splits["val"],
        splits.get("test"),
        names,
        mean,
        std,
        augment,
    )
    built.notes += notes
    return built


def folders(root: Path) -> dict[str, Path]:
    """The folder of each split that there is."""
    if (root / "images").is_dir():
        return {"train": root}
    found = {name: root / name for name in SPLITS if (root / name / "images").is_dir()}
    if "train" not in found:
        raise ConfigError(f"data.root: there is no folder {root / 'train' / 'images'}")
    return found


def pairs(folder: Path, notes: list[str]) -> list[tuple[str, str]]:
    """Every image of a split with its mask, in the order of the names.

    Raises:
        ConfigError: there are no images, or one has no mask.
    """
    images, masks = (
        {file.relative_to(folder / kind).with_suffix(""): file for file in found}
        for kind, found in (
            (kind, filter(is_image, files_under(folder / kind))) for kind in ("images", "masks")
        )
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
            f"data.mask_values={values} should be a different number, from 0 to 65535, for each of "
            "data.class_names"
        )
    return tuple(values)


@dataclass(frozen=True)
class PairReader:
    """How an image file and that of its mask become tensors; both are cropped alike.

    Attributes:
        values: of the classes in the files; None: their numbers.
        num_classes: a higher number is refused.
    """

    decoder: Decoder
    values: tuple[int, ...] | None
    num_classes: int

    def __call__(
        self, image: str, mask: str, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """uint8 ``(C, H, W)`` and ``(H, W)``."""
        pixels, size, box = self.decoder.with_box(image, generator)
        try:
            with open(mask, "rb") as stream, Image.open(stream) as opened:
                self.check(mask, opened, size)
                classes = self.classes(mask, opened, box)
        except ConfigError:
            raise
        except Exception as error:  # whatever PIL's many decoders raise
            raise unreadable(mask, error) from error
        return pixels, classes

    def check(self, file: str, mask: Image.Image, size: tuple[int, int]) -> None:
        if mask.size != size:
            raise ConfigError(
                f"the mask {file} is {mask.width}x{mask.height}, its image {size[0]}x{size[1]}"
            )
        if mask.mode not in MODES:
            raise ConfigError(
                f"the mask {file} has pixels of {mask.mode}: it should be grey or indexed, one "
                "value for each class"
            )

    def classes(self, file: str, mask: Image.Image, box: Box) -> Tensor:
        height, width = self.decoder.size
        resized = mask.resize((width, height), Image.Resampling.NEAREST, box)
        found = torch.from_numpy(numpy.array(resized).astype(numpy.int64))
        if self.values is None:
            wrong = (found >= self.num_classes) & (found != UNLABELLED)
            if wrong.any():
                raise ConfigError(
                    f"the mask {file} has a class {found[wrong][0]}; data.class_names has "
                    f"{self.num_classes}, from 0 on, and {UNLABELLED} is unlabelled; other values "
                    "are told by data.mask_values"
                )
            return found.to(torch.uint8)
        classes = torch.full_like(found, UNLABELLED, dtype=torch.uint8)
        for number, value in enumerate(self.values):
            classes[found == value] = number
        return classes


@dataclass(frozen=True)
class StreamedPairs(StreamedSplit):
    """Image and mask files; cropped at random in training, centred in evaluation."""

    images: list[str]
    masks: list[str]
    reader: PairReader

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        return self.reader(self.images[index], self.masks[index])

    def training_sample(self, index: int, generator: torch.Generator) -> Batch:
        return self.reader(self.images[index], self.masks[index], generator)

    def take(self, indices: Tensor) -> "StreamedPairs":
        chosen = indices.tolist()
        images, masks = ([files[i] for i in chosen] for files in (self.images, self.masks))
        return replace(self, images=images, masks=masks)

    def identity(self) -> tuple[Tensor, ...]:
        """Sizes of all files, and what the first and last one show."""
        sizes = torch.tensor([status(path).st_size for path in self.images + self.masks])
        return (*super().identity(), sizes)


def in_memory(parts: dict[str, StreamedPairs], root: Path) -> dict[str, TensorSplit]:
    """All pairs decoded, or as they were decoded before if neither files nor settings changed."""
    reader = parts["train"].reader
    paths = {name: part.images + part.masks for name, part in parts.items()}
    shape = "x".join(map(str, (reader.decoder.channels, *reader.decoder.size)))

    def decode() -> tuple[Tensor, ...]:
        tensors: list[Tensor] = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for part in parts.values():
                found = list(pool.map(reader, part.images, part.masks))
                tensors += [torch.stack(side) for side in zip(*found, strict=True)]
        return tuple(tensors)

    tensors = fingerprinted(root / f".masks_{shape}.pt", files_digest(paths, root, reader), decode)
    return {name: TensorSplit(*tensors[2 * i : 2 * i + 2]) for i, name in enumerate(parts)}
