"""Streamed images: random crops that depend only on the seed, the epoch and the sample."""

import numpy
import pytest
import torch
from PIL import Image

from core.errors import ConfigError
from core.ranks import Ranks
from data.decode import Decoder, random_crop


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of 24 random images in two classes."""
    root = tmp_path_factory.mktemp("images")
    random = numpy.random.default_rng(0)
    for name in ("a", "b"):
        folder = root / "train" / name
        folder.mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(0, 256, (20, 24, 3), numpy.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture
def loader(make_loader, root):
    """Return a function that builds a loader of streamed images: ``loader(ranks, seed=4)``."""
    settings = {"root": str(root), "resident": False, "image_size": 8, "val_fraction": 0.25}
    settings |= {"batch_size": 4, "num_workers": 0, "seed": 3}
    return lambda *args, **changes: make_loader("image_folder", *args, **settings | changes)


def images_of(loader, epoch=0, start=0):
    return torch.cat([part[0] for update in loader.train(epoch, start) for part in update])


def test_images_do_not_depend_on_num_workers(loader):
    without_workers = loader()
    with_workers = loader(num_workers=2)
    assert torch.equal(images_of(without_workers), images_of(with_workers))
    assert without_workers.order_hash(3) == with_workers.order_hash(3)
    for one, two in zip(without_workers.evaluate("val"), with_workers.evaluate("val"), strict=True):
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])


def test_random_crops_are_reported_and_can_be_disabled(loader):
    """Resident images are not cropped, so the size of a data set could silently change training."""
    plain = {"augment": [], "min_crop_area": 1}
    resident = loader(resident=True, **plain)
    assert torch.equal(images_of(loader(**plain)), images_of(resident))
    assert [loader(**plain).notes, resident.notes] == [[], []]
    (note,) = loader().notes
    assert "streamed, and training sees random crops of them (data.min_crop_area=0.35" in note


def test_images_do_not_depend_on_processes_and_micro_batches(loader):
    expected = images_of(loader())
    assert torch.equal(images_of(loader(), start=2), expected[8:])
    assert torch.equal(images_of(loader(accumulate_steps=2)), expected)
    ranks = [images_of(loader(Ranks(rank, 0, 2))) for rank in (0, 1)]
    merged = torch.cat([images.view(-1, 2, 3, 8, 8) for images in ranks], 1)
    assert torch.equal(merged.view_as(expected), expected)


def test_crops_differ_between_epochs_and_seeds(loader):
    def crops(seed, epoch):
        batches = loader(seed=seed).read("train", [torch.arange(18)], epoch)
        return next(batches)[0]

    first = crops(0, 0)
    assert torch.equal(first, crops(0, 0))
    for other in (crops(0, 1), crops(1, 0), crops(0, None)):
        assert (first != other).flatten(1).any(1).all()


@pytest.mark.parametrize("split", ["val", "train_eval"])
def test_streamed_evaluation_equals_resident(loader, split):
    streamed, resident = loader(seed=4), loader(resident=True)
    for one, two in zip(streamed.evaluate(split), resident.evaluate(split), strict=True):
        assert torch.equal(one[0], two[0])


def test_worker_error_is_one_line(loader, root):
    broken = loader(num_workers=1, batch_size=1)
    file = root / "train" / "a" / "7.png"
    content = file.read_bytes()
    file.write_bytes(content[:60])
    with pytest.raises(ConfigError, match=r"^cannot read the image .*a/7\.png") as info:
        images_of(broken)
    file.write_bytes(content)
    assert "\n" not in str(info.value)


def test_random_crops_stay_inside_and_respect_min_area():
    generator = torch.Generator().manual_seed(0)
    areas = []
    for _ in range(300):
        left, top, right, bottom = random_crop((40, 40), (8, 8), 0.25, generator)
        assert 0 <= left < right <= 40 + 1e-6
        assert 0 <= top < bottom <= 40 + 1e-6
        areas.append((right - left) * (bottom - top) / 1600)
        assert 0.7 < (right - left) / (bottom - top) < 1.4
    assert 0.25 <= min(areas) < 0.35
    assert max(areas) > 0.85


def test_jpeg_decoded_at_reduced_size_matches_full_decoding(tmp_path):
    x = numpy.linspace(0, 255, 512).astype(numpy.uint8)
    file = str(tmp_path / "ramp.jpg")
    Image.fromarray(numpy.stack(numpy.broadcast_arrays(x, x[:, None], x[:1]), 2)).save(file)
    decoder = Decoder((32, 32), 3, False, 10**6, 1.0)
    with Image.open(file) as image:
        decoder.resized(image, (0, 0, 512, 512))
        assert image.size == (64, 64)  # 1/8, the strongest reduction that JPEG offers
    full = torch.from_numpy(numpy.array(Image.open(file).resize((32, 32), Image.Resampling.BOX)))
    assert (decoder(file).permute(1, 2, 0).int() - full.int()).abs().max() <= 4
