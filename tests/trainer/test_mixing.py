"""Mixup and cutmix: torchvision's own, the same however an update is cut."""

import pytest
import torch
from torchvision.transforms import v2

from core.errors import ConfigError
from data.augment import HorizontalFlip, RandomCrop
from data.draws import BatchDraws
from data.images import image_splits
from data.loader import Loader
from data.splits import TensorSplit
from objectives.classification import mixing

CPU = torch.device("cpu")
NUM_CLASSES, BATCH = 5, 12
MIXES = {"mixup": (0.4, 0.0), "cutmix": (0, 1), "one of both": (0.4, 1.0)}
REFERENCES = {
    "mixup": lambda: v2.MixUp(alpha=0.4, num_classes=NUM_CLASSES),
    "cutmix": lambda: v2.CutMix(alpha=1.0, num_classes=NUM_CLASSES),
    "one of both": lambda: v2.RandomChoice([REFERENCES["mixup"](), REFERENCES["cutmix"]()]),
}


@pytest.fixture(scope="module")
def splits():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    split = TensorSplit(images, torch.arange(50) % NUM_CLASSES)
    augment = [RandomCrop(1), HorizontalFlip()]
    return image_splits("test", split, split, split, "abcde", [0.5], [0.5], augment)


def updates(splits, mix, rank=0, world_size=1, accumulate_steps=1):
    loader = Loader(splits, CPU, 0, rank, world_size, accumulate_steps, BATCH, 5, 0)
    return list(loader.train(1, mix=mix))


@pytest.mark.parametrize("name", MIXES)
def test_one_process_mixes_as_torchvision_does(splits, name):
    mixed = updates(splits, mixing(*MIXES[name], splits.spec))
    plain = updates(splits, None)
    assert len(mixed) == len(plain) == 4
    assert not all(
        torch.equal(own[0], batch[0]) for (own,), (batch,) in zip(mixed, plain, strict=True)
    )
    for step, ((own,), (batch,)) in enumerate(zip(mixed, plain, strict=True)):
        BatchDraws(0, 1, step, BATCH, 0, BATCH).seed_for_all_samples()
        images, targets = REFERENCES[name]()(*batch)
        torch.testing.assert_close(own, (images, targets, batch[1]), rtol=0, atol=0)


@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize(("world_size", "accumulate_steps"), [(1, 3), (2, 1), (3, 2), (12, 1)])
def test_however_an_update_is_cut(splits, name, world_size, accumulate_steps):
    mix = mixing(*MIXES[name], splits.spec)
    whole = updates(splits, mix)
    ranks = [updates(splits, mix, r, world_size, accumulate_steps) for r in range(world_size)]
    for step, (expected,) in enumerate(whole):
        parts = [
            ranks[r][step][part] for part in range(accumulate_steps) for r in range(world_size)
        ]
        together = tuple(map(torch.cat, zip(*parts, strict=True)))
        torch.testing.assert_close(together, expected, rtol=0, atol=0)


def test_texts_are_not_mixed(splits):
    class Texts:
        kind = "text"

    with pytest.raises(ConfigError, match=r"mixup_alpha and .*cutmix_alpha are for images"):
        mixing(0.2, 0.0, Texts())
    assert mixing(0.0, 0.0, Texts()) is None
