"""Sums over the connections of one machine's processes; here each process is a thread."""

import os
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import pytest
import torch
import torch.distributed as dist

from trainer.errors import ConfigError, PeerLost
from trainer.mesh import connect, share_memory


@pytest.fixture
def mesh_of():
    """``mesh_of(3, timeout_seconds)``: the meshes of so many ranks, connected with each other."""
    meshes = []

    def make(count, timeout_seconds=30.0):
        store = dist.HashStore()
        with ThreadPoolExecutor(count) as pool:
            arguments = (repeat(value) for value in (count, timeout_seconds))
            meshes.extend(pool.map(connect, repeat(store), range(count), *arguments))
        return meshes

    yield make
    for mesh in meshes:
        mesh.close()


@pytest.fixture(params=[True, False], ids=["shared memory", "connections alone"])
def system(request, monkeypatch):
    if not request.param:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif not hasattr(os, "memfd_create"):
        pytest.skip("this system has no memory without a name")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_sum(system, mesh_of, count, dtype):
    """Of little and of much more than a connection holds, one after the other; the same for all."""
    meshes = mesh_of(count)
    for shape in ((), (3, 5), (1_000_003,), (700, 900), (1_000_003,), (), (9_000_000,)):
        values = [torch.randn(shape).to(dtype) for _ in range(count)]
        expected = values[0] + values[1]
        for value in values[2:]:
            expected = expected + value
        with ThreadPoolExecutor(count) as pool:
            sums = list(pool.map(lambda mesh, x: mesh.sum(x), meshes, values))
        for own, total in zip(values, sums, strict=True):
            assert total is own
            assert torch.equal(total, expected)


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


def test_a_process_that_is_lost_while_connecting():
    here, there = socket.socketpair()
    there.close()
    with here, pytest.raises(PeerLost):
        share_memory(0, {1: here})


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
