"""Grids of images as PNG files."""

import pytest
import torch
from PIL import Image

from data.pictures import GAP, save_grid


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_images_stand_row_by_row(tmp_path, channels, mode):
    images = torch.zeros(5, channels, 4, 6)
    images[4] = 0.6
    save_grid(images, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.mode == mode
        assert grid.size == (3 * 6 + 2 * GAP, 2 * 4 + GAP)  # 3 columns, 2 rows
        grey = grid.convert("L")
    assert grey.getpixel((0, 0)) == 0
    assert grey.getpixel((6 + GAP, 4 + GAP)) == 153  # the fifth: second row, second column
    assert grey.getpixel((2 * (6 + GAP), 4 + GAP)) == 255  # no sixth image
