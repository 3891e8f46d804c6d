"""Batches: normalized, the same samples and draws whatever the processes; limits."""

import random

import numpy
import pytest
import torch
from torch.nn import functional as F

import data.augment
from core.errors import ConfigError, Interrupted
from core.ranks import Ranks
from data.augment import HorizontalFlip, RandomCrop
from data.build import build_data, build_splits
from data.images import PrepareImages, image_splits
from data.loader import Loader
from data.splits import TensorSplit
from models.build import build_model
from tests.trainer.interrupting import SHORT, assert_same_run, signal_at
from trainer import checkpoint

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


def test_continues_where_it_was_interrupted(splits):
    loader = Loader(splits, CPU, 0, 0, 1, 1, 12, 5, 0)
    assert torch.equal(images_of(loader, epoch=3, start=2), images_of(loader, epoch=3)[24:])


def test_an_epoch_has_every_sample_once_and_evaluation_too(splits):
    loader = Loader(splits, CPU, 0, 0, 1, 1, 10, 7, 0)
    labels = torch.cat([part[1] for update in loader.train(0) for part in update])
    assert labels.sort().values.tolist() == list(range(50))
    assert torch.cat([batch[1] for batch in loader.evaluate("val")]).tolist() == list(range(50))


@pytest.mark.parametrize("world_size", [1, 2])
def test_limited_evaluation_is_spread_over_the_split(splits, world_size):
    """Splits are often in the order of their classes."""
    ranks = [Loader(splits, CPU, 0, rank, world_size, 1, 10, 5, 0) for rank in range(world_size)]
    batches = [batch for loader in ranks for batch in loader.evaluate("val", limit=1)]
    assert [len(batch[1]) for batch in batches] == [5] * world_size
    seen = torch.cat([batch[1] for batch in batches]).tolist()
    assert seen == list(range(0, 50, 10 // world_size))
    assert ranks[0].evaluated("val", limit=1).tolist() == seen


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


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_workers", -1), ("num_workers", 100_000), ("num_workers", 0.5), ("batch_size", True)],
)
def test_settings_out_of_range(composed, data_root, key, value):
    config = composed(f"data.root={data_root}")["data"]
    with pytest.raises(ConfigError, match=rf"data\.{key}={value} should be"):
        build_data({**config, key: value}, CPU, 0, Ranks(), 1)


@pytest.mark.usefixtures("few_digits")
def test_overfit_learns_every_training_sample(train, composed, data_root):
    """Measured on the samples as they are: of augmented ones, a few in a thousand may stay wrong,
    more or fewer by the kind of processor."""
    run_dir = train("debug=overfit", "data.augment=[]", "trainer.max_epochs=60")
    config = composed("debug=overfit", "data.augment=[]", f"data.root={data_root}")
    data = build_data(config["data"], CPU, 0, Ranks(), 1)
    model = build_model(config["model"], data.spec, CPU)
    model.load_state_dict(checkpoint.load(run_dir / "checkpoints" / "last.pt")["model"])
    images, labels = next(data.prepared("train", [torch.arange(64)]))
    with torch.no_grad():
        logits = model.eval()(images)
    assert (logits.argmax(1) == labels).all()
    assert F.cross_entropy(logits, labels) < 0.1


class GlobalNoise:
    """An augmentation of somebody's own, which draws from every global generator."""

    def __call__(self, images, draws):
        noise = torch.randint(0, 50, images.shape) + random.randint(0, 50)
        return (images + noise + numpy.random.randint(0, 50)).to(torch.uint8)


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("accumulate_steps", [1, 2])
def test_augmentation_with_global_generators_resumes_exactly(train, monkeypatch, accumulate_steps):
    monkeypatch.setattr(data.augment, "GlobalNoise", GlobalNoise, raising=False)
    monkeypatch.setattr(GlobalNoise, "__module__", "data.augment")
    overrides = (
        *SHORT,
        "model.dropout=0.2",
        "data.augment=[{_target_: data.augment.GlobalNoise}]",
        f"trainer.accumulate_steps={accumulate_steps}",
    )
    whole = train(*overrides)
    with signal_at(3), pytest.raises(Interrupted):
        train(*overrides, run_dir=whole.parent / "parts")
    parts = train(*overrides, "resume=auto", run_dir=whole.parent / "parts")
    assert_same_run(whole, parts)
