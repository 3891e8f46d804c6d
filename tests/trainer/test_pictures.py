"""Writing samples and grids of images as PNG files."""

import pytest
import torch
from PIL import Image

from data.pictures import GAP, save_grid
from data.splits import TensorSplit
from objectives.classification import save_image


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_grid_is_filled_row_by_row(tmp_path, channels, mode):
    images = torch.zeros(5, channels, 4, 6)
    images[4] = 0.6
    save_grid(images, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.mode == mode
        assert grid.size == (3 * 6 + 2 * GAP, 2 * 4 + GAP)  # 3 columns, 2 rows
        grey = grid.convert("L")
    assert grey.getpixel((0, 0)) == 0
    assert grey.getpixel((6 + GAP, 4 + GAP)) == 153  # the fifth image: second row, second column
    assert grey.getpixel((2 * (6 + GAP), 4 + GAP)) == 255  # empty cell


def test_sample_of_resident_or_streamed_split_is_saved(tmp_path):
    """Images that are not uint8 are not saved."""
    images = torch.arange(2 * 3 * 4 * 6, dtype=torch.uint8).view(2, 3, 4, 6)
    labels = torch.tensor([0, 1])
    streamed = list(zip(images, labels, strict=True))
    for split in (TensorSplit(images, labels), streamed):
        with Image.open(tmp_path / save_image(split, 1, tmp_path)) as image:
            assert image.size == (6, 4)
            assert image.getpixel((0, 0)) == tuple(images[1, :, 0, 0].tolist())
    assert save_image([(images[0].float(), 0)], 0, tmp_path) == ""
