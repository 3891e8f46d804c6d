"""Sharding: for any sizes, every sample once, in the same order for any number of processes."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.loader import UPDATES_HASHED_AT_ONCE, Loader
from data.splits import Splits, TensorSplit


@st.composite
def layouts(draw):
    """Samples, processes, micro-batches, batch size (which they divide), evaluation batch size."""
    world_size, accumulate = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    batch = world_size * accumulate * draw(st.integers(1, 4))
    samples = batch + draw(st.integers(0, 60))
    return samples, world_size, accumulate, batch, draw(st.integers(1, 20))


def loader(samples, rank, world_size, accumulate, batch, eval_batch):
    split = TensorSplit(torch.arange(samples))
    splits = Splits(split, split, split, spec=None)
    device = torch.device("cpu")
    return Loader(splits, device, 3, rank, world_size, accumulate, batch, eval_batch, 0)


def samples_of(update):
    return torch.cat([batch[0] for batch in update]).tolist()


@settings(deadline=None, max_examples=50)
@given(layout=layouts(), epoch=st.integers(0, 3))
def test_processes_share_every_update(layout, epoch):
    """Together they see what one process sees, micro-batch by micro-batch, nobody twice."""
    samples, world_size, accumulate, batch, _ = layout
    alone = list(loader(samples, 0, 1, accumulate, batch, 1).train(epoch))
    ranks = [
        list(loader(samples, rank, world_size, accumulate, batch, 1).train(epoch))
        for rank in range(world_size)
    ]
    assert len(alone) == samples // batch
    for step, update in enumerate(alone):
        for part in range(accumulate):
            shares = [ranks[rank][step][part][0] for rank in range(world_size)]
            assert torch.cat(shares).tolist() == update[part][0].tolist()
    seen = [sample for update in alone for sample in samples_of(update)]
    assert len(seen) == len(set(seen)) == samples // batch * batch


def test_the_order_is_hashed_alike_whenever_it_is_asked_for():
    asked_often, asked_once = (loader(600, 0, 1, 1, 1, 1) for _ in range(2))
    often = [asked_often.order_hash for _ in asked_often.train(0)]
    for _ in asked_once.train(0):
        assert len(asked_once.unhashed) < UPDATES_HASHED_AT_ONCE  # however long nobody asks
    assert asked_once.order_hash == asked_often.order_hash
    assert len(set(often)) == 600


@settings(deadline=None, max_examples=50)
@given(layout=layouts())
def test_evaluation_sees_every_sample_once(layout):
    samples, world_size, accumulate, batch, eval_batch = layout
    ranks = [
        loader(samples, rank, world_size, accumulate, batch, eval_batch)
        for rank in range(world_size)
    ]
    seen = [samples_of([b]) for data in ranks for b in data.evaluate("val")]
    assert [sample for part in seen for sample in part] == list(range(samples))


@settings(deadline=None, max_examples=50)
@given(layout=layouts(), data=st.data())
def test_resumed_anywhere(layout, data):
    """From any update on, with another number of processes: same samples, same order hash."""
    samples, world_size, accumulate, batch, _ = layout
    whole = loader(samples, 0, 1, accumulate, batch, 1)
    expected = [samples_of(update) for update in whole.train(1)]
    start = data.draw(st.integers(0, len(expected) - 1))
    first = loader(samples, 0, 1, accumulate, batch, 1)
    for _, _update in zip(range(start), first.train(1), strict=False):
        pass
    parts = [loader(samples, r, world_size, accumulate, batch, 1) for r in range(world_size)]
    for part in parts:
        part.order_hash = first.order_hash
    rest = [list(part.train(1, start)) for part in parts]
    resumed = [
        [s for i in range(accumulate) for r in range(world_size) for s in rest[r][step][i][0]]
        for step in range(len(expected) - start)
    ]
    assert [[int(s) for s in update] for update in resumed] == expected[start:]
    assert {part.order_hash for part in parts} == {whole.order_hash}
