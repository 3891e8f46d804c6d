"""Image files as the uint8 tensors a model was trained on."""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from core.errors import ConfigError
from data.background import border_brightness
from data.decode import MAX_PIXELS, MODES, Decoder, open_image, upright_size
from data.image_folder import files_under, is_image
from data.splits import ImageSpec

GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B")
WAS_INVERTED = "inverted, since its ground is the opposite of training's; --no-invert: as it is"
SHADING = 0.15  # of an image's contrast: less is paper, not ink
OTHER_GROUND = 0.25  # of the range from black to white: a border that differs by more is another


def image_files(paths: list[Path]) -> Iterator[Path]:
    """Every path that is a file, and every image below those that are folders."""
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
    """An image file as training would read it, and inverted where its ground is the opposite.

    Args:
        invert: None inverts grey images whose border and contents are the other way round than in
            the training images.
        max_pixels: see :class:`data.decode.Decoder`.

    Returns:
        ``(1, C, H, W)`` uint8, and what had to be changed or looks wrong.

    Raises:
        ConfigError: the file is no image that can be read.
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
        notes.append(fitting(size, spec.image_size[::-1]))
    if invert or (invert is None and has_opposite_ground(pixels, spec.background)):
        notes.append("inverted" if invert else WAS_INVERTED)
        return inverted(pixels, spec.background), notes
    border = border_brightness(pixels).item()
    if spec.background is not None and abs(border - spec.background) > OTHER_GROUND:
        notes.append(
            f"the border's brightness is {border:.2f}, in training {spec.background:.2f}: "
            "another ground, or the image must be inverted (--invert)"
        )
    return pixels, notes


def has_opposite_ground(pixels: Tensor, background: float | None) -> bool:
    """Whether ``(1, 1, H, W)`` is dark on light and training light on dark, or the reverse."""
    if background is None:
        return False
    border, mean = border_brightness(pixels).item(), pixels.float().mean().item() / 255
    if background < 0.5:
        return border > background + OTHER_GROUND and mean < border
    return border < background - OTHER_GROUND and mean > border


def inverted(pixels: Tensor, background: float | None) -> Tensor:
    """Light for dark; where training has one ``background``, with that and full contrast."""
    if background is None:
        return 255 - pixels
    values = pixels.float() / 255
    darker = border_brightness(pixels) - values  # than the border
    ink = (darker if background < 0.5 else -darker).clamp(min=0)
    ink = (ink / ink.max().clamp(min=1e-6) - SHADING).clamp(min=0) / (1 - SHADING)
    foreground = 1.0 if background < 0.5 else 0.0
    return (255 * (background + ink * (foreground - background))).round().to(pixels.dtype)


def fitting(size: tuple[int, int], target: tuple[int, int]) -> str:
    """What fitting an image of another size does to it; sizes are width and height."""
    scale = min(size[0] / target[0], size[1] / target[1])
    crop = (round(scale * target[0]), round(scale * target[1]))
    steps = [f"cropped to {crop[0]}x{crop[1]}"] if crop != size else []
    steps += [f"resized to {target[0]}x{target[1]}"] if crop != target else []
    return f"{size[0]}x{size[1]} {' and '.join(steps)}"
