"""Batch augmentations of uint8 images ``(N, C, H, W)``; every sample draws its own parameters.

They work on the whole batch at once, which is many times faster than one transform per sample. To
add one, write a class with ``__call__(images, draws)`` and name it in ``data.augment``. For images
with masks, derive it from :class:`Geometric` or set ``moves_pixels = False``.
"""

import math
from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.schema import Count, Fraction
from data.draws import BatchDraws, seed_global_generators

# (pixels (N, C, H, W), "bilinear" or "nearest") -> transformed pixels
Move = Callable[[Tensor, str], Tensor]


class Geometric:
    """Base of augmentations that move pixels: a mask moves with its image.

    An augmentation that moves none sets ``moves_pixels = False``, and masks stay unchanged.
    """

    def draw(self, images: Tensor, draws: BatchDraws) -> Move:
        """Draw the transform of a batch; pixels from outside the image are 0."""
        raise NotImplementedError

    def __call__(self, images: Tensor, draws: BatchDraws) -> Tensor:
        return self.draw(images, draws)(images, "bilinear")

    def together(self, images: Tensor, masks: Tensor, draws: BatchDraws) -> tuple[Tensor, Tensor]:
        """Transform images and their masks ``(N, H, W)``; pixels from outside are unlabelled."""
        move = self.draw(images, draws)
        # the pixels from outside are 0, which stands for UNLABELLED: 255 + 1 is 0 in uint8
        moved_masks = move(masks[:, None] + 1, "nearest")[:, 0] - 1
        return move(images, "bilinear"), moved_masks


class RandomCrop(Geometric):
    """Shift by up to ``padding`` pixels each way.

    Args:
        reflect: pad by reflection instead of zeros.
    """

    def __init__(self, padding: Annotated[int, Field(ge=0)], reflect: bool = False) -> None:
        self.padding = padding
        self.reflect = reflect

    def draw(self, images: Tensor, draws: BatchDraws) -> Move:
        height, width = images.shape[2:]
        offsets = (draws.uniform(2) * (2 * self.padding + 1)).long().tolist()

        def crop(pixels: Tensor, interpolation: str) -> Tensor:
            border = (self.padding,) * 4
            if self.reflect:
                if self.padding >= min(height, width):
                    raise ValueError(f"padding={self.padding} should be below the image's size")
                padded = F.pad(pixels.float(), border, mode="reflect").to(pixels.dtype)
            else:
                padded = F.pad(pixels, border)
            windows = [
                image[:, top : top + height, left : left + width]
                for image, (top, left) in zip(padded, offsets, strict=True)
            ]
            return torch.stack(windows)

        return crop


class HorizontalFlip(Geometric):
    """Mirror each image with probability ``p``."""

    def __init__(self, p: Fraction = 0.5) -> None:
        self.p = p

    def draw(self, images: Tensor, draws: BatchDraws) -> Move:
        flipped = (draws.uniform(1, 1, 1) < self.p).to(images.device, non_blocking=True)
        return lambda pixels, interpolation: torch.where(flipped, pixels.flip(3), pixels)


class AlternatingFlip(Geometric):
    """Mirror each image in every other epoch, so that two epochs show both orientations.

    A random draw per image decides in which epochs (arXiv:2404.00498, section 3.6).
    """

    def draw(self, images: Tensor, draws: BatchDraws) -> Move:
        flipped = (draws.coins() + draws.epoch) % 2 == 1
        flipped = flipped.view(-1, 1, 1, 1).to(images.device, non_blocking=True)
        return lambda pixels, interpolation: torch.where(flipped, pixels.flip(3), pixels)


class Cutout:
    """Blank a square of ``size`` pixels at a random place (arXiv:1708.04552)."""

    moves_pixels = False

    def __init__(self, size: Count) -> None:
        self.size = size

    def __call__(self, images: Tensor, draws: BatchDraws) -> Tensor:
        height, width = images.shape[2:]
        centres = draws.uniform(2).to(images.device, non_blocking=True)
        rows = torch.arange(height, device=images.device)
        columns = torch.arange(width, device=images.device)
        top = (centres[:, :1] * height).floor() - self.size // 2
        left = (centres[:, 1:] * width).floor() - self.size // 2
        in_rows = (rows >= top) & (rows < top + self.size)
        in_columns = (columns >= left) & (columns < left + self.size)
        hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
        return images * ~hole


class RandomAffine(Geometric):
    """Rotate, scale and shift each image: the usual augmentation of digits.

    Args:
        degrees: rotation drawn from ``[-degrees, degrees]``.
        translate: shift by up to this fraction of the size, in each direction.
        scale: factor drawn from ``[1 - scale, 1 + scale]``.
    """

    def __init__(
        self,
        degrees: Annotated[float, Field(ge=0, le=180)] = 10.0,
        translate: Fraction = 0.1,
        scale: Annotated[float, Field(ge=0, le=0.9)] = 0.1,  # near 1, the factor could be 0
    ) -> None:
        self.degrees = degrees
        self.translate = translate
        self.scale = scale

    def draw(self, images: Tensor, draws: BatchDraws) -> Move:
        draw = (draws.uniform(4).to(images.device, non_blocking=True) * 2 - 1).view(-1, 4, 1, 1)
        angle, zoom, right, down = draw.unbind(1)
        return lambda pixels, interpolation: affine(
            pixels,
            angle * math.radians(self.degrees),
            1 + zoom * self.scale,
            right * self.translate,
            down * self.translate,
            interpolation,
        )


def affine(
    images: Tensor,
    angle: Tensor,
    zoom: Tensor,
    right: Tensor,
    down: Tensor,
    interpolation: str = "bilinear",
) -> Tensor:
    """Rotate, scale and shift uint8 images ``(N, C, H, W)``, padding with black.

    Args:
        angle, zoom, right, down: ``(N, 1, 1)``; radians, a factor, and fractions of the size.
    """
    height, width = images.shape[2:]
    # source of each output pixel: its offset from the centre in pixels, rotated and scaled
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = (torch.arange(height, device=images.device) - (height - 1) / 2).view(-1, 1)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    from_x = (cos * x - sin * y) * (2 / width) + right * 2
    from_y = (sin * x + cos * y) * (2 / height) + down * 2
    grid = torch.stack([from_x, from_y], 3)  # grid_sample's coordinates span -1 to 1
    sampled = F.grid_sample(images.to(grid.dtype), grid, mode=interpolation, align_corners=False)
    return sampled.round_().to(torch.uint8)


class PerImage:
    """A transform of single images, such as those of ``torchvision.transforms.v2``.

    The global CPU generators are reseeded for each image, so its draws do not depend on the rest of
    the batch.
    """

    def __init__(self, transform: Callable[[Tensor], Tensor]) -> None:
        self.transform = transform

    def __call__(self, images: Tensor, draws: BatchDraws) -> Tensor:
        transformed = []
        for image, seed in zip(images, draws.seeds(), strict=True):
            seed_global_generators(seed)
            transformed.append(self.transform(image))
        return torch.stack(transformed)

    def together(self, images: Tensor, masks: Tensor, draws: BatchDraws) -> tuple[Tensor, Tensor]:
        """Transform images with their masks ``(N, H, W)``; masks are moved, never recoloured."""
        from torchvision import tv_tensors  # takes a second to import: only when used

        transformed_images, transformed_masks = [], []
        for image, mask, seed in zip(images, masks + 1, draws.seeds(), strict=True):
            seed_global_generators(seed)
            pair = self.transform(tv_tensors.Image(image), tv_tensors.Mask(mask))  # type: ignore[call-arg]
            transformed_images.append(pair[0].as_subclass(Tensor))
            transformed_masks.append(pair[1].as_subclass(Tensor))
        return torch.stack(transformed_images), torch.stack(transformed_masks) - 1
