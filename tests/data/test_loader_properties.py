"""Sharding: for any sizes, every sample once, in the same order for any number of processes."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.loader import Loader
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


def test_order_hash_is_of_the_samples_seen():
    """Whenever it is asked for, and however many updates they came in."""
    data, asked_once = (loader(600, 0, 1, 1, 6, 1) for _ in range(2))
    hashes = [data.order_hash(num_updates) for num_updates in range(250)]
    assert len(set(hashes)) == 250
    assert asked_once.order_hash(249) == hashes[249]
    assert asked_once.order_hash(7) == hashes[7]
    assert loader(600, 0, 1, 1, 12, 1).order_hash(5) == hashes[10]
    assert loader(601, 0, 1, 1, 6, 1).order_hash(5) != hashes[5]


def test_order_hash_after_a_change_of_batch_size():
    """Not that of a run which had the new size from the start."""
    first, changed, same = (loader(600, 0, 1, 1, size, 1) for size in (6, 12, 6))
    recorded = first.order_hash(10)
    changed.continue_order(recorded, 10)
    same.continue_order(recorded, 10)
    assert changed.order_hash(20) != loader(600, 0, 1, 1, 12, 1).order_hash(20)
    assert same.order_hash(20) == first.order_hash(20)


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
    """From any update on, with another number of processes: the same samples."""
    samples, world_size, accumulate, batch, _ = layout
    whole = loader(samples, 0, 1, accumulate, batch, 1)
    expected = [samples_of(update) for update in whole.train(1)]
    start = data.draw(st.integers(0, len(expected) - 1))
    parts = [loader(samples, r, world_size, accumulate, batch, 1) for r in range(world_size)]
    rest = [list(part.train(1, start)) for part in parts]
    resumed = [
        [s for i in range(accumulate) for r in range(world_size) for s in rest[r][step][i][0]]
        for step in range(len(expected) - start)
    ]
    assert [[int(s) for s in update] for update in resumed] == expected[start:]
    assert len({part.order_hash(start) for part in (whole, *parts)}) == 1
