"""Images that a library or an archive reads one by one, decoded as image files are."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from io import BytesIO
from os import cpu_count
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from core.errors import ConfigError
from data.decode import FORMATS, MODES, Decoder, open_image, reading
from data.images import Augment, as_size, image_splits
from data.splits import Batch, Splits, StreamedSplit, TensorSplit, stratified_split


class Source(Protocol):
    """Images by their places: as PIL has them, or the bytes or the path of a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int) -> Any: ...


@dataclass(frozen=True)
class StoredImages(StreamedSplit):
    """Images of ``source``; cropped at random in training, centred in evaluation."""

    name: str  # of the source, for messages
    source: Source
    places: Tensor  # (N,), in the source
    labels: Tensor  # (N,), int64
    decoder: Decoder

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        return self.image(index), self.labels[index]

    def training_sample(self, index: int, generator: torch.Generator) -> Batch:
        return self.image(index, generator), self.labels[index]

    def image(self, index: int, generator: torch.Generator | None = None) -> Tensor:
        place = int(self.places[index])
        with reading(f"{place} of {self.name}"), opened(self.source[place]) as image:
            return self.decoder.decode(f"image {place} of {self.name}", image, generator)

    def take(self, indices: Tensor) -> "StoredImages":
        return replace(self, places=self.places[indices], labels=self.labels[indices])

    def identity(self) -> tuple[Tensor, ...]:
        return (*super().identity(), self.places, self.labels)


def opened(content: Any) -> AbstractContextManager[Image.Image]:
    """An image as PIL has it, or of the bytes or the path of a file."""
    if isinstance(content, bytes):
        return Image.open(BytesIO(content), formats=FORMATS)
    return open_image(content) if isinstance(content, str) else content


def check(channels: int, val_fraction: float, resident: Any, min_crop_area: float) -> None:
    """Raises: ConfigError: a setting is wrong."""
    if channels not in MODES:
        raise ConfigError(f"data.channels={channels} should be 1 (grayscale) or 3 (RGB)")
    if not 0 < val_fraction < 1:
        raise ConfigError(f"data.val_fraction={val_fraction} should be above 0 and below 1")
    if resident not in (True, False, "auto"):
        raise ConfigError(f"data.resident={resident} should be true, false or auto")
    if not 0 < min_crop_area <= 1:
        raise ConfigError(f"data.min_crop_area={min_crop_area} should be above 0 and at most 1")


def decoder_of(
    first: Any,
    image_size: Any,
    channels: int,
    max_pixels: int,
    min_crop_area: float,
) -> Decoder:
    """The decoder that the settings describe.

    Args:
        first: image, whose size counts where ``image_size`` is None.
    """
    if image_size is None:
        with reading("0"), opened(first) as image:
            size = (image.height, image.width)
    else:
        size = as_size(image_size)
    return Decoder(size, channels, image_size is None, max_pixels, min_crop_area)


def stored_splits(
    name: str,
    parts: dict[str, Any],
    class_names: Sequence[str],
    val_fraction: float,
    resident: Any,
    max_resident_bytes: int,
    mean: Any,
    std: Any,
    augment: Sequence[Augment],
    in_memory: Callable[[dict[str, Any]], dict[str, TensorSplit]] | None = None,
) -> Splits:
    """Splits of streamed images, decoded at once where they fit in memory.

    Args:
        parts: ``train``, and ``val`` and ``test`` where there are such; each has a ``decoder`` and
            ``labels``. Without ``val``, it is ``val_fraction`` of ``train``, every class alike.
        resident: ``true`` to decode all images once, ``false`` to stream them, ``auto`` to choose
            by ``max_resident_bytes``.
        in_memory: decodes all; None: at every start.

    Raises:
        ConfigError: an image cannot be read.
    """
    parts = with_validation(parts, val_fraction)
    decoder = parts["train"].decoder
    height, width = decoder.size
    num_bytes = sum(map(len, parts.values())) * decoder.channels * height * width
    if resident is True or (resident == "auto" and num_bytes <= max_resident_bytes):
        parts = (in_memory or decoded)(parts)
    built = image_splits(
        name,
        parts["train"],
        parts["val"],
        parts.get("test"),
        class_names,
        mean,
        std,
        augment,
    )
    if decoder.min_crop_area < 1 and isinstance(built.train, StreamedSplit):
        built.notes.append(
            "data.resident: the images are streamed, and training sees random crops of them "
            f"(data.min_crop_area={decoder.min_crop_area}; 1: none)"
        )
    return built


def with_validation(parts: dict[str, Any], val_fraction: float) -> dict[str, Any]:
    """The splits, with validation taken from training where there is none of its own."""
    if "val" in parts:
        return parts
    train = parts["train"]
    labels = train.tensors[-1] if isinstance(train, TensorSplit) else train.labels
    rest, val = map(train.take, stratified_split(labels, (1 - val_fraction, val_fraction)))
    return {**parts, "train": rest, "val": val}


def decoded(parts: dict[str, Any]) -> dict[str, TensorSplit]:
    return {
        name: TensorSplit(decode_all(part.image, len(part), part.decoder), part.labels)
        for name, part in parts.items()
    }


def decode_all(image: Callable[[int], Tensor], count: int, decoder: Decoder) -> Tensor:
    """``(N, C, H, W)``, decoded in parallel: PIL lets other threads run meanwhile."""
    images = torch.empty(count, decoder.channels, *decoder.size, dtype=torch.uint8)
    with ThreadPoolExecutor(cpu_count()) as pool:
        for place, found in enumerate(pool.map(image, range(count))):
            images[place] = found
    return images


def class_numbers(labels: Sequence[Any]) -> tuple[Tensor, tuple[str, ...]]:
    """Labels as int64 classes ``(N,)``, and the classes' names.

    Whole numbers are classes as they stand; names are numbered in their order.

    Raises:
        ConfigError: they are neither.
    """
    if all(isinstance(label, int) for label in labels):
        numbers = torch.tensor(labels)
        return numbers, tuple(map(str, range(int(numbers.max()) + 1)))
    if all(isinstance(label, str) for label in labels):
        names = sorted(set(labels))
        places = {name: place for place, name in enumerate(names)}
        return torch.tensor([places[label] for label in labels]), tuple(names)
    kinds = ", ".join(sorted({type(label).__name__ for label in labels}))
    raise ConfigError(f"labels should be whole numbers or names, they are {kinds}")
