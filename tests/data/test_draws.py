"""Random draws, splits and cached tensors are reproducible."""

import random

import numpy
import torch

from core.rng import preserve_rng_state
from data.cache import cached_tensors
from data.draws import BatchDraws, seed_process
from data.held_out import stratified_split


def test_processes_of_neighbouring_seeds_draw_different_numbers():
    drawn = []
    with preserve_rng_state():
        for seed in range(100, 105):
            for rank in range(4):
                seed_process(torch.device("cpu"), seed, rank)
                drawn.append([float(torch.rand(1)), numpy.random.rand(), random.random()])
    for numbers in zip(*drawn, strict=True):
        assert len(set(numbers)) == 20


def test_sample_seeds_are_distinct_and_set_by_position():
    seeds = BatchDraws(0, 0, 0, 1000, 0, 1000).seeds()
    assert len(set(seeds)) == 1000
    assert seeds[300:500] == BatchDraws(0, 0, 0, 1000, 300, 500).seeds()


def test_split_is_exact_stratified_and_deterministic():
    labels = torch.arange(60_000) % 7 * (torch.arange(60_000) % 3).sign()  # uneven classes
    parts = stratified_split(labels, (11 / 12, 1 / 12))
    assert [len(part) for part in parts] == [55_000, 5_000]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(60_000))
    expected_counts = labels.bincount() / 12
    assert (labels[parts[1]].bincount() - expected_counts).abs().max() < 2
    assert torch.equal(parts[1], stratified_split(labels, (11 / 12, 1 / 12))[1])


def test_cache_is_rebuilt_if_damaged_or_of_another_fingerprint(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return torch.arange(3), torch.tensor([len(calls)])

    file = tmp_path / "deep" / "cache.pt"
    for fingerprint, num_calls in (("a", 1), ("a", 1), ("b", 2), ("b", 2)):
        numbers, count = cached_tensors(file, fingerprint, make)
        assert numbers.tolist() == [0, 1, 2]
        assert count.item() == num_calls
    assert [path.name for path in file.parent.iterdir()] == ["cache.pt"]
    for num_calls, content in enumerate((b"", b"no tensors", file.read_bytes()[:100]), 3):
        file.write_bytes(content)
        assert cached_tensors(file, "b", make)[1].item() == num_calls
    (tmp_path / "file").write_text("in the way")  # so the cache cannot be written
    for num_calls in (6, 7):
        assert cached_tensors(tmp_path / "file" / "cache.pt", "b", make)[1].item() == num_calls
