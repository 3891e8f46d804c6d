"""Prepared tensors are kept while their source is the same, and are never needed."""

import torch

from data.cache import fingerprinted


def counted(calls):
    calls.append(1)
    return torch.arange(3), torch.tensor([len(calls)])


def test_made_once_for_every_fingerprint(tmp_path):
    calls = []
    file = tmp_path / "deep" / "cache.pt"
    for fingerprint, made in (("a", 1), ("a", 1), ("b", 2), ("b", 2)):
        numbers, count = fingerprinted(file, fingerprint, lambda: counted(calls))
        assert numbers.tolist() == [0, 1, 2]
        assert count.item() == made
    assert [path.name for path in file.parent.iterdir()] == ["cache.pt"]


def test_damaged_file_is_made_anew(tmp_path):
    calls = []
    file = tmp_path / "cache.pt"
    for content in (b"", b"no tensors"):
        file.write_bytes(content)
        fingerprinted(file, "a", lambda: counted(calls))
    fingerprinted(file, "a", lambda: counted(calls))
    assert len(calls) == 2


def test_where_nothing_can_be_written(tmp_path):
    calls = []
    (tmp_path / "file").write_text("in the way")
    for _ in range(2):
        fingerprinted(tmp_path / "file" / "cache.pt", "a", lambda: counted(calls))
    assert len(calls) == 2
