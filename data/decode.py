"""Decodes image files to uint8 tensors of one size."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from core.errors import ConfigError, reason

Image.MAX_IMAGE_PIXELS = None  # Decoder.max_pixels is the limit, which a user can set

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 50_000_000  # per image, where no setting gives a limit
VERSION = 3  # of the decoder; caches written by another version are rebuilt
MODES = {1: "L", 3: "RGB"}
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Decoder:
    """Decodes image files to tensors ``(channels, height, width)``, in training and prediction.

    The EXIF orientation is applied, 16-bit grey is scaled to 8 bits, and transparent images are
    composited on white.

    Attributes:
        size: height and width of the tensors in pixels.
        channels: 1 for grayscale, 3 for RGB; files are converted.
        same_size: reject images of another size instead of resizing them.
        max_pixels: reject larger images, since a small file can declare a huge one.
        min_crop_area: smallest random crop as a fraction of the image's area; 1: no random crops.
    """

    size: tuple[int, int]
    channels: int
    same_size: bool
    max_pixels: int
    min_crop_area: float

    @property
    def shape(self) -> str:
        return "x".join(map(str, (self.channels, *self.size)))

    def __call__(
        self, content: Any, generator: torch.Generator | None = None, name: str = ""
    ) -> Tensor:
        """Decode and resize the largest centred crop, or with a ``generator`` a random crop.

        Args:
            content: see :func:`open_image`.
            name: name of the image for messages; files are named by their path.

        Raises:
            ConfigError: if the image cannot be read or is not of the right size.
        """
        return self.decode(content, generator, name)[0]

    def decode(
        self, content: Any, generator: torch.Generator | None, name: str = ""
    ) -> tuple[Tensor, tuple[int, int], Box]:
        """Like ``__call__``, with the image's width and height and the box that was cropped."""
        name = content if isinstance(content, str) else name
        with reading(name), open_image(content) as image:
            self.check(name, image)
            size = upright_size(image)
            if generator is None or self.min_crop_area == 1:
                box = centred_crop(size, self.size)
            else:
                box = random_crop(size, self.size, self.min_crop_area, generator)
            pixels = numpy.array(self.resized(image, box))
        tensor = torch.from_numpy(pixels).view(*self.size, -1).permute(2, 0, 1).contiguous()
        return tensor, size, box

    def check(self, name: str, image: Image.Image) -> None:
        width, height = upright_size(image)
        if width * height > self.max_pixels:
            raise ConfigError(
                f"the image {name} has {width}x{height} pixels, more than the allowed "
                f"{self.max_pixels:,} (data.max_pixels)"
            )
        if self.same_size and (height, width) != self.size:
            raise ConfigError(
                f"the image {name} is {width}x{height} and the first image {self.size[1]}x"
                f"{self.size[0]}: set data.image_size to resize all images"
            )
        if image.mode in ("I", "F") and not has_16_bits(image):
            raise ConfigError(
                f"the image {name} has 32-bit pixels: save it with 8 or 16 bits per channel"
            )

    def resized(self, image: Image.Image, box: Box) -> Image.Image:
        """Rotate ``image`` upright, crop ``box``, and convert and resize the result."""
        height, width = self.size
        full_width, full_height = upright_size(image)
        left, top, right, bottom = box
        # a JPEG can be decoded at 1/2, 1/4 or 1/8 of its size if that is still large enough
        draft_size = (
            math.ceil(full_width * width / (right - left)),
            math.ceil(full_height * height / (bottom - top)),
        )
        image.draft(MODES[self.channels], draft_size[::-1] if is_rotated_90(image) else draft_size)
        ImageOps.exif_transpose(image, in_place=True)
        x, y = image.width / full_width, image.height / full_height
        return opaque(image, MODES[self.channels]).resize(
            (width, height), Image.Resampling.BILINEAR, (left * x, top * y, right * x, bottom * y)
        )


@contextmanager
def open_image(content: Any) -> Iterator[Image.Image]:
    """Open an image without decoding its pixels: a file's path or bytes, or a PIL image.

    PIL may try only ``FORMATS``: for PostScript, under any file name, it would start Ghostscript.
    """
    if isinstance(content, Image.Image):
        with content:
            yield content
        return
    # as a stream: PIL memory-maps TIFF files opened by path, and gets rotated ones wrong
    with (
        BytesIO(content) if isinstance(content, bytes) else open(content, "rb") as stream,
        Image.open(stream, formats=FORMATS) as image,
    ):
        yield image


@contextmanager
def reading(name: str | Path) -> Iterator[None]:
    """Turn any exception of PIL's decoders into a one-line ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        is_other = isinstance(error, UnidentifiedImageError)
        why = "unknown image format" if is_other else reason(error)
        raise ConfigError(f"cannot read the image {name}: {why}") from error


def size_of(content: Any, name: str = "") -> tuple[int, int]:
    """Height and width of an image, without decoding it; see :meth:`Decoder.__call__`."""
    with reading(content if isinstance(content, str) else name), open_image(content) as image:
        width, height = upright_size(image)
    return height, width


def opaque(image: Image.Image, mode: str) -> Image.Image:
    """The image converted to ``mode``, its transparent parts composited on white."""
    if has_16_bits(image):
        values = numpy.asarray(image).astype(numpy.float32)
        image = Image.fromarray((values / 257).round().astype(numpy.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert(mode)


def has_16_bits(image: Image.Image) -> bool:
    """Whether the image is 16-bit grey; PIL reads 16-bit PNM files as 32-bit integers."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")


def is_rotated_90(image: Image.Image) -> bool:
    """Whether the EXIF orientation swaps height and width; PIL rotates TIFF images itself."""
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    return orientation in (5, 6, 7, 8) and image.format != "TIFF"


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height after applying the EXIF orientation."""
    return image.size[::-1] if is_rotated_90(image) else image.size


def centred_crop(image_size: tuple[int, int], size: tuple[int, int]) -> Box:
    """Largest centred box in ``image_size`` (w, h) with the aspect ratio of ``size`` (h, w)."""
    width, height = image_size
    crop_width = min(width, height * size[1] / size[0])
    crop_height = min(height, width * size[0] / size[1])
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
    return left, top, left + crop_width, top + crop_height


def random_crop(
    image_size: tuple[int, int],
    size: tuple[int, int],
    min_area: float,
    generator: torch.Generator,
) -> Box:
    """A random box of area ``min_area`` to 1, aspect ratio 3:4 to 4:3 (arXiv:1409.4842)."""
    width, height = image_size
    area, shape, x, y = torch.rand(4, generator=generator).tolist()
    area = width * height * (min_area + (1 - min_area) * area)
    shape = size[1] / size[0] * (3 / 4) ** (1 - 2 * shape)  # width / height
    crop_width, crop_height = (
        min(width, math.sqrt(area * shape)),
        min(height, math.sqrt(area / shape)),
    )
    left, top = x * (width - crop_width), y * (height - crop_height)
    return left, top, left + crop_width, top + crop_height
