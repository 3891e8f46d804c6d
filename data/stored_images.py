"""Splits of encoded images, streamed or all decoded at the start."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import PIL
import torch
from pydantic import Field
from torch import Tensor

from core.errors import ConfigError
from core.instantiate import instantiate
from data.cache import cached_tensors
from data.decode import VERSION, Decoder, reading, size_of
from data.held_out import numbered, split_off, train_val_test
from data.images import Augment, as_size, image_splits
from data.splits import Batch, Splits, StreamedSplit, TensorSplit


@dataclass(frozen=True)
class StoredImages(StreamedSplit):
    """Images of ``source``; random crops in training, centred crops in evaluation."""

    name: str  # of the source, for messages
    source: Callable[[int], Any]  # file path, file contents or PIL image by its place
    places: Tensor  # (N,), of the images in the source
    labels: Tensor  # (N,), int64
    decoder: Decoder

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, index: int, generator: torch.Generator | None) -> Batch:
        place = int(self.places[index])
        name = f"{place} of {self.name}"
        with reading(name):
            content = self.source(place)
        return self.decoder(content, generator, name), self.labels[index]

    def take(self, indices: Tensor) -> "StoredImages":
        return replace(self, places=self.places[indices], labels=self.labels[indices])

    def identity(self) -> tuple[Tensor, ...]:
        return (*super().identity(), self.places, self.labels)


@dataclass(frozen=True)
class ImageSettings:
    """Settings shared by all sets of encoded images; see ``conf/data/_stored_images.yaml``.

    Attributes:
        image_size: height and width, or one number for both; None: all images have one size.
        channels: 1 (grayscale) or 3 (RGB).
        val_fraction: share of training for validation if there is no such split.
        resident: ``True`` to decode all images at the start, ``False`` to stream them, ``"auto"``
            to choose by ``max_resident_bytes``.
        max_pixels, min_crop_area: see :class:`data.decode.Decoder`.
        mean, std, augment: see :func:`data.images.image_splits`.
    """

    image_size: Any
    channels: Literal[1, 3]
    val_fraction: Annotated[float, Field(gt=0, lt=1)]
    resident: Literal[True, False, "auto"]
    max_resident_bytes: int
    max_pixels: int
    min_crop_area: Annotated[float, Field(gt=0, le=1)]
    mean: float | Sequence[float]
    std: float | Sequence[float]
    augment: Sequence[Augment] = ()

    def decoder(self, first: Any, name: str = "") -> Decoder:
        """The decoder for these settings; without an ``image_size``, ``first`` gives the size."""
        return Decoder(
            size=size_of(first, name) if self.image_size is None else as_size(self.image_size),
            channels=self.channels,
            same_size=self.image_size is None,
            max_pixels=self.max_pixels,
            min_crop_area=self.min_crop_area,
        )

    def stored(
        self, name: str, sources: Mapping[str, Callable[[int], Any]], labels: dict[str, Tensor]
    ) -> dict[str, StoredImages]:
        """Streamed splits of ``sources``: ``train``, and optionally ``val`` and ``test``."""
        decoder = self.decoder(sources["train"](0), f"0 of {name}")
        return {
            split: StoredImages(
                name=f"{name} ({split})",
                source=source,
                places=torch.arange(len(labels[split])),
                labels=labels[split],
                decoder=decoder,
            )
            for split, source in sources.items()
        }

    def loaded(
        self,
        parts: dict[str, Any],
        test_fraction: float | None = None,
        cache: Path | None = None,
    ) -> dict[str, Any]:
        """Add missing validation and test splits, and decode all images if they fit in memory.

        Args:
            test_fraction: share of training if there is no test split; None: leave it missing.
            cache: see :func:`in_memory`.

        Raises:
            ConfigError: if an image cannot be read.
        """
        if test_fraction is not None:
            parts = split_off(parts, {"test": test_fraction})
        parts = split_off(parts, {"val": self.val_fraction})
        if isinstance(parts["train"], TensorSplit):
            return parts
        num_bytes = sum(tensor.nbytes for tensor in parts["train"][0])
        fits = num_bytes * sum(map(len, parts.values())) <= self.max_resident_bytes
        if self.resident is True or (self.resident == "auto" and fits):
            return in_memory(parts, cache)
        return parts

    def splits(self, name: str, parts: dict[str, Any], class_names: Sequence[str]) -> Splits:
        """The data set made of ``parts``."""
        result = image_splits(
            name, *train_val_test(parts), class_names, self.mean, self.std, self.augment
        )
        if self.min_crop_area < 1 and isinstance(result.train, StreamedSplit):
            result.notes.append(
                "data.resident: the images are streamed, and training sees random crops of them "
                f"(data.min_crop_area={self.min_crop_area}; 1: none)"
            )
        return result


def image_settings(settings: dict[str, Any], source: Callable[..., Splits]) -> ImageSettings:
    """The shared ``settings`` of ``source``, checked; typo hints consider its own names, too.

    Raises:
        ConfigError: if a setting is unknown, of a wrong type or out of range.
    """
    node = {"_target_": f"{__name__}.ImageSettings", **settings}
    return instantiate(node, "data", within=source)


def in_memory(parts: dict[str, Any], cache: Path | None) -> dict[str, TensorSplit]:
    """Decode all samples, or load them from ``cache`` if neither files nor settings changed.

    Args:
        cache: file next to the images, for splits with ``files`` and ``decoding``; None: none.
    """

    def decode() -> tuple[Tensor, ...]:
        like = parts["train"][0]
        return tuple(tensor for part in parts.values() for tensor in decode_all(part, like))

    if cache is None:
        tensors = decode()
    else:
        files = {name: part.files for name, part in parts.items()}
        digest = files_digest(files, cache.parent, parts["train"].decoding)
        tensors = cached_tensors(cache, digest, decode)
    width = len(tensors) // len(parts)
    return {
        name: TensorSplit(*tensors[width * i : width * (i + 1)]) for i, name in enumerate(parts)
    }


def decode_all(split: StreamedSplit, like: Batch) -> tuple[Tensor, ...]:
    """Decode all samples, shaped as ``like``, in threads: PIL releases the GIL."""
    tensors = tuple(torch.empty(len(split), *part.shape, dtype=part.dtype) for part in like)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for place, sample in enumerate(pool.map(split.__getitem__, range(len(split)))):
            for tensor, value in zip(tensors, sample, strict=True):
                tensor[place] = value
    return tensors


def files_digest(files: dict[str, Sequence[str]], root: Path, how: str) -> str:
    """Hash of the files' names, sizes and modification times, and of how they are decoded."""
    digest = hashlib.sha256(f"{VERSION} {PIL.__version__} {how}".encode())
    for name, paths in files.items():
        for path in paths:
            info = status(path)
            stamp = f"{info.st_size} {info.st_mtime_ns}"
            digest.update(os.fsencode(f"{name} {os.path.relpath(path, root)} {stamp}\n"))
    return digest.hexdigest()


def status(path: str) -> os.stat_result:
    """``os.stat`` of an image file; ConfigError if it is a dangling link."""
    with reading(path):
        return os.stat(path)


def class_numbers(
    labels: Mapping[str, Sequence[Any]], setting: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The labels of every split as int64 classes ``(N,)``, and the class names.

    Integers are class numbers already; names are numbered in sorted order.

    Raises:
        ConfigError: if labels are neither; names the ``setting``.
    """
    flat = [label for part in labels.values() for label in part]
    if all(isinstance(label, int) for label in flat):
        numbers = torch.tensor(flat)
        names = tuple(map(str, range(max(flat) + 1)))
    elif all(isinstance(label, str) for label in flat):
        names = tuple(sorted(set(flat)))
        numbers = numbered(flat)
    else:
        kinds = ", ".join(sorted({type(label).__name__ for label in flat}))
        raise ConfigError(f"{setting}: labels should be integers or strings, not {kinds}")
    parts = numbers.split([len(part) for part in labels.values()])
    return dict(zip(labels, parts, strict=True)), names
