"""Stratified splits: exact sizes, every class alike, nothing twice."""

import torch

from data.splits import stratified_split


def test_exact_and_stratified():
    labels = torch.arange(60_000) % 7 * (torch.arange(60_000) % 3).sign()  # uneven classes
    parts = stratified_split(labels, (11 / 12, 1 / 12), seed=1)
    assert [len(part) for part in parts] == [55_000, 5_000]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(60_000))
    share = labels.bincount() / 12
    assert (labels[parts[1]].bincount() - share).abs().max() < 2


def test_the_seed_decides():
    labels = torch.arange(100) % 5
    first = stratified_split(labels, (0.5, 0.5), seed=1)
    assert torch.equal(first[0], stratified_split(labels, (0.5, 0.5), seed=1)[0])
    assert not torch.equal(first[0], stratified_split(labels, (0.5, 0.5), seed=2)[0])
