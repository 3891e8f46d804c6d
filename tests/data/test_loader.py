"""Batches: the order of samples, sharding over processes, normalization, limits and resuming."""

import random

import numpy
import pytest
import torch
from torch.nn import functional as F

import data.augment
from core.errors import ConfigError, Interrupted
from core.ranks import Ranks
from data.build import build_data
from data.images import PrepareImages
from data.loader import Loader
from data.splits import Splits, TensorSplit
from models.build import build_model
from tests.trainer.interrupting import SHORT, assert_same_run, signal_at
from trainer.checkpoint import files as checkpoint

CPU = torch.device("cpu")


def layouts():
    """Yield random layouts whose batch size is a multiple of processes times micro-batches."""
    rng = random.Random(0)
    for _ in range(25):
        world_size, accumulate = rng.randint(1, 4), rng.randint(1, 3)
        batch = world_size * accumulate * rng.randint(1, 4)
        yield batch + rng.randint(0, 60), world_size, accumulate, batch, rng.randint(1, 20)


def loader(samples, rank, world_size, accumulate, batch, eval_batch=1):
    split = TensorSplit(torch.arange(samples))
    splits = Splits(split, split, split, spec=None)
    return Loader(splits, CPU, 3, rank, world_size, accumulate, batch, eval_batch, 0)


@pytest.mark.parametrize(
    ("samples", "world_size", "accumulate", "batch", "eval_batch"), list(layouts())
)
def test_ranks_together_see_the_batches_of_a_single_process(
    samples, world_size, accumulate, batch, eval_batch
):
    """Concatenated over ranks, every micro-batch equals that of one process."""
    single = loader(samples, 0, 1, accumulate, batch)
    expected = list(single.train(1))
    assert len(expected) == samples // batch
    seen = [i for update in expected for micro_batch in update for i in micro_batch[0].tolist()]
    assert len(seen) == len(set(seen)) == samples // batch * batch
    start = len(expected) // 2  # where a run is resumed
    loaders = [
        loader(samples, rank, world_size, accumulate, batch, eval_batch)
        for rank in range(world_size)
    ]
    ranks = [list(data.train(1, start)) for data in loaders]
    for step, update in enumerate(expected[start:]):
        for micro_batch in range(accumulate):
            shards = [rank[step][micro_batch][0] for rank in ranks]
            assert torch.equal(torch.cat(shards), update[micro_batch][0])
    assert len({data.order_hash(start) for data in (single, *loaders)}) == 1
    evaluated = [batch[0] for data in loaders for batch in data.evaluate("val")]
    assert torch.cat(evaluated).tolist() == list(range(samples))


def test_order_hash_identifies_the_samples_seen():
    """It depends neither on earlier calls nor on how the samples were grouped into updates."""
    data, fresh = (loader(600, 0, 1, 1, 6) for _ in range(2))
    hashes = [data.order_hash(num_updates) for num_updates in range(250)]
    assert len(set(hashes)) == 250
    assert fresh.order_hash(249) == hashes[249]
    assert fresh.order_hash(7) == hashes[7]
    assert loader(600, 0, 1, 1, 12).order_hash(5) == hashes[10]
    assert loader(601, 0, 1, 1, 6).order_hash(5) != hashes[5]


def test_order_hash_records_a_change_of_batch_size():
    """A run that changed its batch size differs from one that had the new size from the start."""
    first, changed, unchanged = (loader(600, 0, 1, 1, size) for size in (6, 12, 6))
    recorded = first.order_hash(10)
    changed.continue_order(recorded, 10)
    unchanged.continue_order(recorded, 10)
    assert changed.order_hash(20) != loader(600, 0, 1, 1, 12).order_hash(20)
    assert unchanged.order_hash(20) == first.order_hash(20)


def test_images_are_normalized_per_channel():
    images = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8)
    prepare = PrepareImages((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), ())
    (prepared,) = prepare((images,), None)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    torch.testing.assert_close(prepared, (images / 255 - mean) / std)


@pytest.mark.parametrize("world_size", [1, 2])
def test_limited_evaluation_is_spread_over_the_split(world_size):
    """Splits are often sorted by class, so their first samples are not representative."""
    ranks = [loader(50, rank, world_size, 1, 10, 5) for rank in range(world_size)]
    batches = [batch[0] for data in ranks for batch in data.evaluate("val", limit=1)]
    assert [len(batch) for batch in batches] == [5] * world_size
    seen = torch.cat(batches).tolist()
    assert seen == list(range(0, 50, 10 // world_size))
    assert ranks[0].evaluated("val", limit=1).tolist() == seen


def test_limit_train_samples_is_the_same_for_every_seed(make_loader):
    limited = {"limit_train_samples": 40, "batch_size": 20}
    first, second = (make_loader("mnist5k", seed=seed, **limited) for seed in (0, 1))
    sizes = first.sizes()
    assert (sizes["train"], sizes["val"], sizes["test"]) == (40, 500, 1000)
    assert torch.equal(first.splits["train"].tensors[0], second.splits["train"].tensors[0])
    assert len(first.splits["train"].tensors[1].unique()) > 5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_workers", -1), ("num_workers", 100_000), ("num_workers", 0.5), ("batch_size", True),
        *(("limit_train_samples", limit) for limit in (0, 3501, 1.5, True)),
    ],
)  # fmt: skip
def test_setting_out_of_range_is_rejected(make_loader, key, value):
    with pytest.raises(ConfigError, match=rf"data\.{key}={value} should be"):
        make_loader("mnist5k", **{key: value})


@pytest.mark.usefixtures("few_digits")
def test_overfit_learns_every_training_sample(train, composed, data_root):
    """Augmentation is off: with it, a few samples in a thousand may stay wrong."""
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
    """A user's augmentation that draws from every global generator."""

    def __call__(self, images, draws):
        noise = torch.randint(0, 50, images.shape) + random.randint(0, 50)
        return (images + noise + numpy.random.randint(0, 50)).to(torch.uint8)


@pytest.mark.usefixtures("few_digits")
def test_resume_with_all_kinds_of_random_draws_is_bit_identical(train, monkeypatch):
    """Batches, samples and the model draw; balanced class weights depend on all training labels."""
    monkeypatch.setattr(data.augment, "GlobalNoise", GlobalNoise, raising=False)
    monkeypatch.setattr(GlobalNoise, "__module__", "data.augment")
    noise = "data.augment=[{_target_: data.augment.GlobalNoise}]"
    transforms = "data.transforms=[{name: RandomRotation, degrees: 30}, RandomInvert]"
    overrides = (*SHORT, "model.dropout=0.2", noise, transforms)
    overrides += ("trainer.accumulate_steps=2", "objective.class_weights=balanced")
    overrides += ("data.num_workers=1",)  # samples draw in the worker, batches in this process
    uninterrupted = train(*overrides)
    run_dir = uninterrupted.parent / "resumed"
    with signal_at(3), pytest.raises(Interrupted):
        train(*overrides, run_dir=run_dir)
    resumed = train(*overrides, "resume=auto", run_dir=run_dir)
    assert_same_run(uninterrupted, resumed)
