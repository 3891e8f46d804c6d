"""Mixup and cutmix: equal to torchvision's, for any number of micro-batches and processes."""

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
NUM_CLASSES, BATCH_SIZE = 5, 12
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
    loader = Loader(splits, CPU, 0, rank, world_size, accumulate_steps, BATCH_SIZE, 5, 0)
    return list(loader.train(1, mix=mix))


@pytest.mark.parametrize("name", MIXES)
def test_mixing_equals_torchvision(splits, name):
    mixed = updates(splits, mixing(*MIXES[name], splits.spec))
    plain = updates(splits, None)
    assert len(mixed) == len(plain) == 4
    assert not all(
        torch.equal(mixed_batch[0], batch[0])
        for (mixed_batch,), (batch,) in zip(mixed, plain, strict=True)
    )
    for step, ((mixed_batch,), (batch,)) in enumerate(zip(mixed, plain, strict=True)):
        BatchDraws(0, 1, step, BATCH_SIZE, 0, BATCH_SIZE).seed_for_all_samples()
        images, targets = REFERENCES[name]()(*batch)
        torch.testing.assert_close(mixed_batch, (images, targets, batch[1]), rtol=0, atol=0)


@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize(("world_size", "accumulate_steps"), [(1, 3), (2, 1), (3, 2), (12, 1)])
def test_mixing_is_independent_of_micro_batches_and_ranks(
    splits, name, world_size, accumulate_steps
):
    mix = mixing(*MIXES[name], splits.spec)
    full = updates(splits, mix)
    ranks = [updates(splits, mix, r, world_size, accumulate_steps) for r in range(world_size)]
    for step, (expected,) in enumerate(full):
        parts = [
            ranks[r][step][part] for part in range(accumulate_steps) for r in range(world_size)
        ]
        joined = tuple(map(torch.cat, zip(*parts, strict=True)))
        torch.testing.assert_close(joined, expected, rtol=0, atol=0)


def test_mixing_text_is_rejected(splits):
    class TextSpec:
        kind = "text"

    with pytest.raises(ConfigError, match=r"mixup_alpha and .*cutmix_alpha are for images"):
        mixing(0.2, 0.0, TextSpec())
    assert mixing(0.0, 0.0, TextSpec()) is None
