"""Sums over the connections of one machine's processes; here each process is a thread."""

import mmap
import os
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count, repeat

import pytest
import torch
import torch.distributed as dist

from core.errors import ConfigError, PeerLost
from trainer.mesh import Mesh, connect


@pytest.fixture
def mesh_of():
    """``mesh_of(3, timeout_seconds)``: the meshes of so many ranks, connected with each other."""
    meshes = []

    def make(size, timeout_seconds=30.0):
        store = dist.HashStore()
        with ThreadPoolExecutor(size) as pool:
            arguments = (repeat(value) for value in (size, timeout_seconds))
            meshes.extend(pool.map(connect, repeat(store), range(size), *arguments))
        return meshes

    yield make
    for mesh in meshes:
        mesh.close()


HAS_MEMORY = hasattr(os, "memfd_create")


@pytest.fixture(params=[True, False], ids=["shared memory", "connections alone"])
def shares(request, monkeypatch):
    """Whether the processes share memory."""
    if not request.param:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif not HAS_MEMORY:
        pytest.skip("this system has no memory without a name")
    return request.param


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_sum(shares, mesh_of, monkeypatch, size, dtype):
    """Of little and of much more than a connection holds, one after the other; the same for all."""
    meshes = mesh_of(size)
    shared, share = [], Mesh.share
    monkeypatch.setattr(Mesh, "share", lambda mesh, x: shared.append(x) or share(mesh, x))
    for shape in ((), (3, 5), (1_000_003,), (700, 900), (1_000_003,), (), (9_000_000,)):
        values = [torch.randn(shape).to(dtype) for _ in range(size)]
        expected = values[0] + values[1]
        for value in values[2:]:
            expected = expected + value
        with ThreadPoolExecutor(size) as pool:
            sums = list(pool.map(lambda mesh, x: mesh.sum(x), meshes, values))
        for own, total in zip(values, sums, strict=True):
            assert total is own
            assert torch.equal(total, expected)
    assert bool(shared) == shares


def test_a_late_process_is_waited_for(mesh_of):
    first, second = mesh_of(2)
    with ThreadPoolExecutor() as pool:
        total = pool.submit(first.sum, torch.ones(3))
        time.sleep(0.3)  # longer than the other stays awake
        second.sum(torch.ones(3))
        assert torch.equal(total.result(), torch.full((3,), 2.0))


def test_a_silent_process(mesh_of):
    with pytest.raises(RuntimeError, match="Timed out waiting for rank 1"):
        mesh_of(2, timeout_seconds=0.2)[0].sum(torch.ones(3))


def test_a_process_that_does_not_come():
    with pytest.raises(RuntimeError, match="Timed out waiting for a connection from rank 1"):
        connect(dist.HashStore(), 0, 2, 0.2)


def test_a_path_too_long_for_a_socket(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(ConfigError, match="TMPDIR"):
        connect(dist.HashStore(), 0, 2, 0.2)
    assert not list(long.iterdir())


def test_a_lost_process(mesh_of):
    first, second = mesh_of(2)
    second.close()
    with pytest.raises(PeerLost, match="rank 1"):
        first.sum(torch.ones(3))


@pytest.mark.parametrize("says", [b"", (1).to_bytes(4, "little")], ids=["nothing", "its rank"])
def test_a_process_that_is_lost_while_connecting(says):
    store = dist.HashStore()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(connect, store, 0, 2, 30.0)
        with socket.socket(socket.AF_UNIX) as lost:
            lost.connect(store.get("mesh/0").decode())
            lost.sendall(says)
        with pytest.raises(PeerLost):
            waiting.result()


def test_a_process_that_is_lost_before_it_is_met(tmp_path):
    store = dist.HashStore()
    store.set("mesh/0", str(tmp_path / "gone"))
    with pytest.raises(PeerLost, match="No such file"):
        connect(store, 1, 2, 0.2)


@pytest.mark.skipif(not HAS_MEMORY, reason="this system has no memory without a name")
@pytest.mark.parametrize("refused", ["memfd_create", "ftruncate", "mmap.mmap"])
def test_memory_that_one_process_is_refused(mesh_of, monkeypatch, refused):
    """Then none uses it; no file stays open."""
    place = mmap if refused == "mmap.mmap" else os
    real = getattr(place, refused.removeprefix("mmap."))
    calls = count()

    def refuse_once(*arguments):
        if next(calls) == 1:
            raise OSError("refused")
        return real(*arguments)

    monkeypatch.setattr(place, refused.removeprefix("mmap."), refuse_once)
    before = len(os.listdir("/proc/self/fd"))
    meshes = mesh_of(3)
    assert not any(mesh.halves for mesh in meshes)
    with ThreadPoolExecutor(3) as pool:
        sums = list(pool.map(lambda mesh: mesh.sum(torch.ones(100_000)), meshes))
    assert all(torch.equal(total, torch.full((100_000,), 3.0)) for total in sums)
    for mesh in meshes:
        mesh.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_sum_that_waits_for_no_one_sees_what_was_put_for_it(mesh_of):
    """One process may be a sum ahead: it must not write over what the other has yet to read."""
    first, second = mesh_of(2)
    ones = [torch.full((100_000,), float(value)) for value in range(50)]
    with ThreadPoolExecutor() as pool:
        ahead = pool.submit(lambda: [float(first.sum(x.clone())[0]) for x in ones])
        behind = []
        for x in ones:
            time.sleep(0.001)
            behind.append(float(second.sum(x.clone())[-1]))
        assert ahead.result() == behind == [2.0 * value for value in range(50)]
