"""Image files as the uint8 tensors a model was trained on."""

from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from torch import Tensor

from core.errors import ConfigError
from data.decode import MODES, Decoder, upright_size
from data.image_folder import images_under
from data.splits import ImageSpec

MAX_PIXELS = 50_000_000
WORDS = {"L": "grayscale", "RGB": "RGB"}


def image_files(paths: list[Path]) -> Iterator[Path]:
    """Every path that is a file, and every image below those that are folders."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        files = list(images_under(path))
        if not files:
            raise ConfigError(f"there are no image files in {path}")
        yield from files


def read_image(file: Path, spec: ImageSpec) -> tuple[Tensor, list[str]]:
    """An image file in the size and mode of the training images.

    Another size becomes the largest centred crop, scaled.

    Returns:
        ``(1, C, H, W)`` uint8, and what had to be changed or looks wrong.

    Raises:
        ConfigError: the file is no image that can be read.
    """
    decoder = Decoder(
        size=spec.image_size,
        channels=spec.in_channels,
        same_size=False,
        max_pixels=MAX_PIXELS,
        min_crop_area=1.0,
    )
    pixels = decoder(str(file))
    notes = []
    with Image.open(file) as image:
        if image.mode != MODES[spec.in_channels]:
            notes.append(f"{image.mode} converted to {WORDS[MODES[spec.in_channels]]}")
        size = upright_size(image)
    if size != spec.image_size[::-1]:
        notes.append(fitting(size, spec.image_size[::-1]))
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
