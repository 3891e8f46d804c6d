"""Reads image files into uint8 tensors like those of the training data."""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from core.errors import ConfigError
from data.decode import MAX_PIXELS, MODES, Decoder, open_image, upright_size
from data.image_folder import files_under, is_image
from data.images import border_brightness
from data.splits import ImageSpec

GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B")
WAS_INVERTED = "inverted, as its background is the opposite of training's (--no-invert to keep)"
MIN_CONTRAST = 0.15  # share of the contrast below which a pixel is paper, not ink
BACKGROUND_TOLERANCE = 0.25  # difference in border brightness, in [0, 1], of another background


def image_files(paths: list[Path]) -> Iterator[Path]:
    """The paths that are files, and all images below those that are folders."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        files = list(filter(is_image, files_under(path)))
        if not files:
            raise ConfigError(f"there are no image files in {path}")
        yield from files


def read_image(
    file: Path, spec: ImageSpec, invert: bool | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[Tensor, list[str]]:
    """Read an image file as in training, inverted if its background is the opposite of training's.

    Args:
        invert: whether to invert; None: only grey images that are dark on light where training is
            light on dark, or the reverse.
        max_pixels: see :class:`data.decode.Decoder`.

    Returns:
        ``(1, C, H, W)`` uint8, and notes on conversions and possible problems.

    Raises:
        ConfigError: if the file cannot be read as an image.
    """
    if spec.in_channels not in MODES:
        raise ConfigError(
            f"cannot read the image {file}: the model takes {spec.in_channels} channels, files "
            "have 1 or 3"
        )
    decoder = Decoder(
        size=spec.image_size,
        channels=spec.in_channels,
        same_size=False,
        max_pixels=max_pixels,
        min_crop_area=1.0,
    )
    pixels = decoder(str(file)).unsqueeze(0)
    notes = []
    with open_image(file) as image:
        size = upright_size(image)
        if spec.in_channels == 1 and image.mode not in GREY_MODES:
            notes.append("converted to grayscale")
    if size != spec.image_size[::-1]:
        notes.append(resize_note(size, spec.image_size[::-1]))
    if invert or (invert is None and has_opposite_ground(pixels, spec.background)):
        notes.append("inverted" if invert else WAS_INVERTED)
        return inverted(pixels, spec.background), notes
    border = border_brightness(pixels).item()
    if spec.background is not None and abs(border - spec.background) > BACKGROUND_TOLERANCE:
        notes.append(
            f"the border's brightness is {border:.2f}, in training {spec.background:.2f}: "
            "another background, or the image must be inverted (--invert)"
        )
    return pixels, notes


def has_opposite_ground(pixels: Tensor, background: float | None) -> bool:
    """Whether an image is dark on light and training light on dark, or the reverse."""
    if background is None:
        return False
    border, mean = border_brightness(pixels).item(), pixels.float().mean().item() / 255
    if background < 0.5:
        return border > background + BACKGROUND_TOLERANCE and mean < border
    return border < background - BACKGROUND_TOLERANCE and mean > border


def inverted(pixels: Tensor, background: float | None) -> Tensor:
    """Invert an image; if training has a ``background``, stretch to it and to full contrast."""
    if background is None:
        return 255 - pixels
    values = pixels.float() / 255
    darker = border_brightness(pixels) - values  # relative to the border
    ink = (darker if background < 0.5 else -darker).clamp(min=0)
    ink = (ink / ink.max().clamp(min=1e-6) - MIN_CONTRAST).clamp(min=0) / (1 - MIN_CONTRAST)
    foreground = 1.0 if background < 0.5 else 0.0
    return (255 * (background + ink * (foreground - background))).round().to(pixels.dtype)


def resize_note(size: tuple[int, int], target: tuple[int, int]) -> str:
    """Note on how an image was cropped and resized; sizes are ``(width, height)``."""
    scale = min(size[0] / target[0], size[1] / target[1])
    crop = (round(scale * target[0]), round(scale * target[1]))
    steps = [f"cropped to {crop[0]}x{crop[1]}"] if crop != size else []
    steps += [f"resized to {target[0]}x{target[1]}"] if crop != target else []
    return f"{size[0]}x{size[1]} {' and '.join(steps)}"
