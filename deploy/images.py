"""Image files as the uint8 tensors a model was trained on."""

from collections.abc import Iterator
from pathlib import Path

import numpy
import torch
from PIL import Image, ImageOps
from torch import Tensor

from core.errors import ConfigError
from data.decode import MODES
from data.image_folder import SUFFIXES
from data.splits import ImageSpec

WORDS = {"L": "grayscale", "RGB": "RGB"}


def image_files(paths: list[Path]) -> Iterator[Path]:
    """Every path that is a file, and every image below those that are folders."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not files:
            raise ConfigError(f"there are no image files in {path}")
        yield from files


def read_image(file: Path, spec: ImageSpec) -> tuple[Tensor, list[str]]:
    """An image file in the size and mode of the training images.

    It is turned as its EXIF orientation says. Another size becomes the largest centred crop,
    scaled; transparency is laid on white.

    Returns:
        ``(1, C, H, W)`` uint8, and what had to be changed or looks wrong.

    Raises:
        ConfigError: the file is no image that can be read.
    """
    height, width = spec.image_size
    mode = MODES[spec.in_channels]
    notes = []
    try:
        with Image.open(file) as stored:
            image = ImageOps.exif_transpose(stored)
            if image.mode.startswith(("I", "F")):
                raise ConfigError(f"{file} has more than 8 bits a channel (mode {image.mode})")
            if image.mode != mode:
                notes.append(f"{image.mode} converted to {WORDS[mode]}")
            if image.size != (width, height):
                notes.append(fitting(image.size, (width, height)))
            converted = on_white(image).convert(mode)
            fitted = ImageOps.fit(converted, (width, height), Image.Resampling.BILINEAR)
    except ConfigError:
        raise
    except Exception as error:  # whatever PIL's many decoders raise
        raise ConfigError(f"cannot read the image {file}: {str(error).splitlines()[0]}") from error
    pixels = torch.from_numpy(numpy.array(fitted)).view(height, width, -1).permute(2, 0, 1)
    brightness, usual = pixels.float().mean().item() / 255, sum(spec.mean) / len(spec.mean)
    if abs(brightness - usual) > 0.5:
        notes.append(
            f"brightness {brightness:.2f}, in training {usual:.2f}: perhaps it must be inverted"
        )
    return pixels.unsqueeze(0), notes


def fitting(size: tuple[int, int], target: tuple[int, int]) -> str:
    """What fitting an image of another size does to it; sizes are width and height."""
    scale = min(size[0] / target[0], size[1] / target[1])
    crop = (round(scale * target[0]), round(scale * target[1]))
    steps = [f"cropped to {crop[0]}x{crop[1]}"] if crop != size else []
    steps += [f"resized to {target[0]}x{target[1]}"] if crop != target else []
    return f"{size[0]}x{size[1]} {' and '.join(steps)}"


def on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))
