"""Data sets read one sample at a time: their random draws, order and worker processes."""

import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys

import numpy
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

from core.errors import ConfigError
from data.build import subset
from data.images import image_splits
from data.loader import Loader
from data.splits import Splits
from tests.conftest import ROOT

CPU = torch.device("cpu")


class RandomSamples(Dataset):
    """A sample is a draw from each global generator, its index and the ID of the process."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        draws = [float(torch.rand(1)), numpy.random.rand(), random.random()]
        return torch.tensor(draws, dtype=torch.float64), index, os.getpid()


def loader(split, num_workers=0, seed=0, batch_size=4, accumulate_steps=1):
    splits = Splits(split, split, None, spec=None)
    return Loader(splits, CPU, seed, 0, 1, accumulate_steps, batch_size, 5, num_workers)


def draws_of(batches):
    """Draws ``(samples, 3)``, sorted by the index of the sample."""
    draws, indices, _ = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return draws[indices.argsort()]


def epoch_batches(data, index, start=0):
    return [batch for update in data.train(index, start) for batch in update]


def test_draws_differ_between_epochs_and_seeds():
    data = loader(RandomSamples(), num_workers=2)
    seen = [draws_of(epoch_batches(data, 0)), draws_of(epoch_batches(data, 1))]
    seen.append(draws_of(epoch_batches(loader(RandomSamples(), seed=1), 0)))
    for generator in range(3):
        assert len(torch.stack(seen)[:, :, generator].unique()) == 36


@pytest.mark.parametrize("num_workers", [0, 2])
def test_draws_depend_only_on_seed_epoch_and_sample(num_workers):
    expected = epoch_batches(loader(RandomSamples()), 3)
    torch.rand(5), random.random(), numpy.random.rand()
    data = loader(RandomSamples(), num_workers, batch_size=6, accumulate_steps=2)
    list(data.evaluate("val"))  # must not affect training
    assert torch.equal(draws_of(epoch_batches(data, 3)), draws_of(expected))
    resumed = epoch_batches(loader(RandomSamples(), num_workers), 3, start=1)
    assert torch.equal(torch.cat([b[0] for b in resumed]), torch.cat([b[0] for b in expected[1:]]))


def test_evaluations_draw_the_same_numbers_for_every_seed():
    data, other = loader(RandomSamples(), seed=1), loader(RandomSamples(), num_workers=1, seed=2)
    expected = draws_of(data.evaluate("val"))
    assert torch.equal(draws_of(data.evaluate("val")), expected)
    assert torch.equal(draws_of(other.evaluate("val")), expected)


def test_workers_persist_across_epochs_and_exit_on_close():
    data = loader(RandomSamples(), num_workers=2)
    workers = {int(pid) for batch in epoch_batches(data, 0) for pid in batch[2]}
    next(data.train(1))  # an epoch that is not read to its end
    later_workers = {int(pid) for batch in epoch_batches(data, 2) for pid in batch[2]}
    assert workers == later_workers
    assert len(workers) == 2
    assert os.getpid() not in workers
    data.close()
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_workers_survive_termination_signals():
    """A cluster signals every process of a job, and the run must save its state before it ends."""
    data = loader(RandomSamples(), num_workers=1)
    batches = data.evaluate("val")
    worker = int(next(batches)[2][0])
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        os.kill(worker, signum)
    assert len(list(batches)) == 2
    assert len(epoch_batches(data, 0)) == 3


class Stream(IterableDataset):
    """Indices in a different order in every epoch, each with a random draw."""

    def __init__(self, length=24):
        self.length, self.epoch = length, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.length

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.epoch)
        for index in torch.randperm(24, generator=generator):
            yield index, torch.rand(1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_iterable_data_set_is_read_in_its_own_order(num_workers):
    """The number of processes and workers and the position of a resume do not change it."""
    expected = epoch_batches(loader(Stream()), 3)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.cat([batch[0] for batch in expected]), order)
    resumed = epoch_batches(loader(Stream(), num_workers), 3, start=2)
    assert_equal(resumed, expected[2:])
    splits = Splits(Stream(), None, None, spec=None)
    ranks = [
        epoch_batches(Loader(splits, CPU, 0, rank, 2, 1, 4, 5, num_workers), 3) for rank in (0, 1)
    ]
    merged = [map(torch.cat, zip(*pair, strict=True)) for pair in zip(*ranks, strict=True)]
    assert_equal([tuple(batch) for batch in merged], expected)
    data = loader(Stream(), num_workers)
    first, second = list(data.evaluate("val")), list(data.evaluate("val"))
    assert_equal(first, second)
    assert sum(len(batch[0]) for batch in first) == 24


def test_partly_read_stream_can_be_pickled():
    split = Splits(Stream(), None, None, spec=None).train
    first, third = split[0], split[2]
    copy = pickle.loads(pickle.dumps(split))
    assert copy[0][0] == first[0]
    assert copy[2][0] == third[0]


def assert_equal(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert all(map(torch.equal, batch, other))


def test_unsupported_iterable_data_sets_are_rejected():
    class Endless(IterableDataset):
        def __iter__(self):
            return iter(range(10))

    with pytest.raises(ConfigError, match=r"^the train split is a Endless without a length"):
        Splits(Endless(), None, None, spec=None)
    with pytest.raises(ConfigError, match=r"^the val split is a generator without a length"):
        Splits(RandomSamples(), (i for i in range(3)), None, spec=None)
    with pytest.raises(ConfigError, match=r"^the train split is a Endless without a length"):
        image_splits("test", Endless(), None, None, "ab", 0.5, 0.5)
    with pytest.raises(ConfigError, match=r"Stream ended after 24 samples, but its length is 30"):
        list(loader(Stream(30)).evaluate("val"))
    with pytest.raises(ConfigError, match=r"limit_train_samples=3 should be null: an iterable"):
        subset(Splits(Stream(), None, None, spec=None).train, 3, "data.limit_train_samples")


@pytest.mark.parametrize("sample", [{"word": "a"}, torch.zeros(3)], ids=["dict", "tensor"])
def test_sample_that_is_not_a_tuple_of_tensors_is_rejected(sample):
    with pytest.raises(ConfigError, match="should be a tuple of tensors and numbers"):
        epoch_batches(loader([sample] * 4), 0)


def test_open_loader_does_not_block_interpreter_exit():
    program = (
        "import torch; from torch.utils.data import TensorDataset\n"
        "from data.loader import Loader; from data.splits import Splits\n"
        "split = TensorDataset(torch.arange(8))\n"
        "splits = Splits(split, split, None, spec=None)\n"
        "next(Loader(splits, torch.device('cpu'), 0, 0, 1, 1, 4, 4, 1).train(0))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=120)
    assert result.returncode == 0


class Failing(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise RuntimeError("no such sample")


RAGGED = [(torch.zeros(length, 3), length) for length in (4, 3, 2, 1)]
CANNOT_BE_STACKED = (
    r"^data=of its own: samples of shapes \(1, 3\) and \(2, 3\) cannot be stacked into a batch: "
    r"set Splits\(collate=\.\.\.\) or data\.collate_fn to a function that can batch them, such as "
    r"data\.collate\.Pad$"
)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    ("split", "error", "message"),
    [(Failing(), RuntimeError, "no such sample"), (RAGGED, ConfigError, CANNOT_BE_STACKED)],
    ids=["failing", "sizes"],
)
def test_workers_exit_while_their_error_is_still_referenced(split, error, message, num_workers):
    """A worker that outlives its loader would block the process at exit."""
    before = set(multiprocessing.active_children())
    data = loader(split, num_workers)
    with pytest.raises(error, match=message) as caught:
        list(data.evaluate("val"))
    data.close()
    assert set(multiprocessing.active_children()) <= before
    assert caught.value.__traceback__ is not None
