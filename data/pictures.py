"""Writes tensors as image files."""

import math
from pathlib import Path

import torch
from torch import Tensor

from core.files import no_link

GAP = 2  # pixels between the images of a grid


def save_grid(images: Tensor, file: Path) -> None:
    """Write images ``(N, C, H, W)`` in [0, 1] as a square grid in one PNG, row by row.

    ``C`` is 1 (grey) or 3 (RGB).
    """
    from PIL import Image

    count, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    cells = torch.ones(rows * columns, channels, height + GAP, width + GAP)
    cells[:count, :, :height, :width] = images.clamp(0, 1).cpu()
    # (rows, columns, C, H, W) -> (rows * H, columns * W, C)
    pixels = cells.unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    array = (pixels[:-GAP, :-GAP] * 255).round().to(torch.uint8).squeeze(2).numpy()
    with open(file, "wb", opener=no_link) as opened:
        Image.fromarray(array).save(opened, "PNG")
