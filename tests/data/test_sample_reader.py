"""Samples read one by one: what they draw, and the processes that read them."""

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


class Drawing(Dataset):
    """Every sample draws from the three global generators; also, who has read it."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        draws = [float(torch.rand(1)), numpy.random.rand(), random.random()]
        return torch.tensor(draws, dtype=torch.float64), index, os.getpid()


def loader(split, num_workers=0, seed=0, batch_size=4, accumulate_steps=1):
    splits = Splits(split, split, None, spec=None)
    return Loader(splits, CPU, seed, 0, 1, accumulate_steps, batch_size, 5, num_workers)


def draws_of(batches):
    """``(samples, 3)`` in the order of the samples' indices."""
    draws, indices, _ = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return draws[indices.argsort()]


def epoch(data, number, start=0):
    return [batch for update in data.train(number, start) for batch in update]


def test_every_epoch_and_seed_draws_other_numbers():
    data = loader(Drawing(), num_workers=2)
    seen = [draws_of(epoch(data, 0)), draws_of(epoch(data, 1))]
    seen.append(draws_of(epoch(loader(Drawing(), seed=1), 0)))
    for generator in range(3):
        assert len(torch.stack(seen)[:, :, generator].unique()) == 36


@pytest.mark.parametrize("num_workers", [0, 2])
def test_draws_depend_on_seed_epoch_and_sample_alone(num_workers):
    whole = epoch(loader(Drawing()), 3)
    torch.rand(5), random.random(), numpy.random.rand()
    data = loader(Drawing(), num_workers, batch_size=6, accumulate_steps=2)
    list(data.evaluate("val"))  # what ran before
    assert torch.equal(draws_of(epoch(data, 3)), draws_of(whole))
    resumed = epoch(loader(Drawing(), num_workers), 3, start=1)
    assert torch.equal(torch.cat([b[0] for b in resumed]), torch.cat([b[0] for b in whole[1:]]))


def test_every_evaluation_draws_the_same():
    data, other = loader(Drawing(), seed=1), loader(Drawing(), num_workers=1, seed=2)
    expected = draws_of(data.evaluate("val"))
    assert torch.equal(draws_of(data.evaluate("val")), expected)
    assert torch.equal(draws_of(other.evaluate("val")), expected)


def test_workers_stay_for_the_run_and_end_with_it():
    data = loader(Drawing(), num_workers=2)
    workers = {int(pid) for batch in epoch(data, 0) for pid in batch[2]}
    next(data.train(1))  # an epoch that is left in the middle
    again = {int(pid) for batch in epoch(data, 2) for pid in batch[2]}
    assert workers == again
    assert len(workers) == 2
    assert os.getpid() not in workers
    data.close()
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_workers_outlive_the_signals_that_end_the_run():
    """A cluster signals every process of a job: the run saves its state first."""
    data = loader(Drawing(), num_workers=1)
    batches = data.evaluate("val")
    worker = int(next(batches)[2][0])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        os.kill(worker, number)
    assert len(list(batches)) == 2
    assert len(epoch(data, 0)) == 3


class Stream(IterableDataset):
    """Samples in another order in every epoch, each with a draw."""

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
def test_an_iterable_data_set_is_read_in_its_order(num_workers):
    """Whatever the number of processes and workers, and from where the run goes on."""
    whole = epoch(loader(Stream()), 3)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.cat([batch[0] for batch in whole]), order)
    resumed = epoch(loader(Stream(), num_workers), 3, start=2)
    assert_equal(resumed, whole[2:])
    splits = Splits(Stream(), None, None, spec=None)
    parts = [epoch(Loader(splits, CPU, 0, rank, 2, 1, 4, 5, num_workers), 3) for rank in (0, 1)]
    both = [map(torch.cat, zip(*pair, strict=True)) for pair in zip(*parts, strict=True)]
    assert_equal([tuple(batch) for batch in both], whole)
    data = loader(Stream(), num_workers)
    once, again = list(data.evaluate("val")), list(data.evaluate("val"))
    assert_equal(once, again)
    assert sum(len(batch[0]) for batch in once) == 24


def test_a_begun_stream_can_be_handed_to_a_worker():
    split = Splits(Stream(), None, None, spec=None).train
    first, third = split[0], split[2]
    handed = pickle.loads(pickle.dumps(split))
    assert handed[0][0] == first[0]
    assert handed[2][0] == third[0]


def assert_equal(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert all(map(torch.equal, batch, other))


def test_iterable_data_sets_that_are_refused():
    class Endless(IterableDataset):
        def __iter__(self):
            return iter(range(10))

    with pytest.raises(ConfigError, match=r"^the train split is a Endless without a length"):
        Splits(Endless(), None, None, spec=None)
    with pytest.raises(ConfigError, match=r"^the val split is a generator without a length"):
        Splits(Drawing(), (i for i in range(3)), None, spec=None)
    with pytest.raises(ConfigError, match=r"^the train split is a Endless without a length"):
        image_splits("test", Endless(), None, None, "ab", 0.5, 0.5)
    with pytest.raises(ConfigError, match=r"Stream ended after 24 samples, but its length is 30"):
        list(loader(Stream(30)).evaluate("val"))
    with pytest.raises(ConfigError, match=r"limit_train_samples=3 should be null: an iterable"):
        subset(Splits(Stream(), None, None, spec=None).train, 3, "data.limit_train_samples")


@pytest.mark.parametrize("sample", [{"word": "a"}, torch.zeros(3)], ids=["dict", "tensor"])
def test_samples_that_are_no_tuples_of_tensors(sample):
    with pytest.raises(ConfigError, match="should be a tuple of tensors and numbers"):
        epoch(loader([sample] * 4), 0)


def test_a_loader_left_open_does_not_keep_the_program_from_ending():
    program = (
        "import torch; from torch.utils.data import TensorDataset\n"
        "from data.loader import Loader; from data.splits import Splits\n"
        "split = TensorDataset(torch.arange(8))\n"
        "splits = Splits(split, split, None, spec=None)\n"
        "next(Loader(splits, torch.device('cpu'), 0, 0, 1, 1, 4, 4, 1).train(0))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=120)
    assert done.returncode == 0


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
def test_workers_end_after_an_error_that_is_still_held(split, error, message, num_workers):
    """Else the process would wait for them for ever at its exit."""
    before = set(multiprocessing.active_children())
    data = loader(split, num_workers)
    with pytest.raises(error, match=message) as held:
        list(data.evaluate("val"))
    data.close()
    assert set(multiprocessing.active_children()) <= before
    assert held.value.__traceback__ is not None
