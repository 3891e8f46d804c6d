"""Batches: normalized, the same samples and draws whatever the processes; limits."""

import dataclasses
import json

import pytest
import torch

import data.loader
from core.errors import ConfigError
from core.ranks import Ranks
from data.augment import HorizontalFlip, RandomCrop
from data.build import build_data, build_splits
from data.images import PrepareImages, image_splits
from data.loader import Loader
from data.splits import Splits, TensorSplit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def splits():
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    split = TensorSplit(images, torch.arange(50))
    augment = [RandomCrop(1), HorizontalFlip()]
    return image_splits("test", split, split, split, "ab", [0.1, 0.2, 0.3], [0.5], augment)


def images_of(loader, epoch=0, start=0):
    return torch.cat([part[0] for update in loader.train(epoch, start) for part in update])


def test_normalization():
    images = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8)
    prepare = PrepareImages((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), ())
    (prepared,) = prepare((images,), None)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    torch.testing.assert_close(prepared, (images / 255 - mean) / std)


def test_same_augmented_samples_whatever_the_processes_and_micro_batches(splits):
    whole = images_of(Loader(splits, CPU, 0, 0, 1, 1, 12, 5, 0))
    assert len(whole) == 48
    assert torch.equal(images_of(Loader(splits, CPU, 0, 0, 1, 3, 12, 5, 0)), whole)
    for accumulate_steps in (1, 2):
        shares = [
            images_of(Loader(splits, CPU, 0, rank, 3, accumulate_steps, 12, 5, 0))
            for rank in range(3)
        ]
        share = 12 // 3 // accumulate_steps
        together = torch.cat([part.view(-1, share, 3, 8, 8) for part in shares], 1)
        assert torch.equal(together.view_as(whole), whole)


class Watched:
    """Notes how many samples it is asked to prepare."""

    def __init__(self, prepare, is_per_sample):
        self.prepare, self.is_per_sample, self.sizes = prepare, is_per_sample, []

    def __call__(self, batch, draws):
        self.sizes.append(len(batch[0]))
        return self.prepare(batch, draws)


def test_batches_are_prepared_together(splits, monkeypatch):
    """As many as fit, after the first: with the same result."""
    watched = dataclasses.replace(splits, prepare=(prepare := Watched(splits.prepare, True)))
    one_by_one = images_of(Loader(splits, CPU, 0, 0, 1, 1, 4, 5, 0))
    assert len(one_by_one) == 48
    sample = one_by_one[0].numel() * 4 + 8  # bytes of the image and of its label
    for num_bytes, expected in {
        16 * sample: [4, 16, 16, 12],
        15 * sample: [4, *[12] * 3, 8],
        sample: [4] * 12,
    }.items():
        prepare.sizes.clear()
        monkeypatch.setattr(data.loader, "BYTES_AT_ONCE", num_bytes)
        assert torch.equal(images_of(Loader(watched, CPU, 0, 0, 1, 1, 4, 5, 0)), one_by_one)
        assert prepare.sizes == expected


def test_a_batch_of_many_is_like_one_by_itself(splits):
    """Not a part of a larger tensor: it may be changed in place, is aligned as a new one is, so
    that every kernel rounds alike, and keeps nothing else in memory."""
    loader = Loader(splits, CPU, 0, 0, 1, 1, 3, 5, 0)
    weight = torch.ones(1, requires_grad=True)
    batches = [update[0] for update in loader.train(0)]
    assert len(batches) == 16
    for images, labels in batches:
        for tensor in (images, labels):
            assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
            assert tensor.data_ptr() % 64 == 0
        images *= weight


def test_only_what_says_so_is_prepared_together(splits):
    """A function of one's own may look at the batch as a whole; and a split may pad."""

    class Padding(TensorSplit):
        def gather(self, indices):
            return super().gather(indices)

    own = Watched(splits.prepare, False)
    images_of(Loader(dataclasses.replace(splits, prepare=own), CPU, 0, 0, 1, 1, 4, 5, 0))
    assert own.sizes == [4] * 12
    padding = Watched(splits.prepare, True)
    changed = dataclasses.replace(
        splits, prepare=padding, train=Padding(*splits.train.tensors), val=None, test=None
    )
    images_of(Loader(changed, CPU, 0, 0, 1, 1, 4, 5, 0))
    assert padding.sizes == [4] * 12


def test_what_shrinks_is_not_gathered_whole():
    """The raw samples count, too."""
    split = TensorSplit(torch.zeros(64, 3, 512, 512, dtype=torch.uint8))
    prepare = Watched(lambda batch, draws: (batch[0][:, :, ::64, ::64],), True)
    loader = Loader(Splits(split, None, None, None, prepare), CPU, 0, 0, 1, 1, 1, 5, 0)
    assert len(list(loader.train(0))) == 64
    assert max(prepare.sizes) == 2  # of 786 kB each


def test_continues_where_it_was_interrupted(splits):
    loader = Loader(splits, CPU, 0, 0, 1, 1, 12, 5, 0)
    assert torch.equal(images_of(loader, epoch=3, start=2), images_of(loader, epoch=3)[24:])


def test_an_epoch_has_every_sample_once_and_evaluation_too(splits):
    loader = Loader(splits, CPU, 0, 0, 1, 1, 10, 7, 0)
    labels = torch.cat([part[1] for update in loader.train(0) for part in update])
    assert labels.sort().values.tolist() == list(range(50))
    assert torch.cat([batch[1] for batch in loader.evaluate("val")]).tolist() == list(range(50))


def test_limit_takes_the_same_samples_for_every_seed(composed, data_root):
    config = composed(f"data.root={data_root}")["data"]
    config |= {"limit_train_samples": 40, "batch_size": 20}
    first, second = (build_data(config, CPU, seed, Ranks(), 1) for seed in (0, 1))
    assert first.sizes() == {"train": 40, "val": 500, "test": 1000}
    assert torch.equal(first.splits["train"].tensors[0], second.splits["train"].tensors[0])
    assert len(first.splits["train"].tensors[1].unique()) > 5


@pytest.mark.parametrize("limit", [0, 3501, 1.5, True])
def test_limit_out_of_range(composed, data_root, limit):
    config = composed(f"data.root={data_root}")["data"]
    with pytest.raises(ConfigError, match=rf"data\.limit_train_samples={limit} should be null or"):
        build_splits({**config, "limit_train_samples": limit})


def test_overfit_reaches_every_training_sample(train):
    run_dir = train("debug=overfit")
    events = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    accuracies = [event["train/accuracy"] for event in events if "train/accuracy" in event]
    assert accuracies[-1] == 1.0
