"""Sums over the processes of one machine, amid computation on its CPUs.

Gloo leaves messages to a thread of its own, which on busy processors waits for its turn longer than
a layer computes. Here every process has a connection to every other and reads it itself. What is
more than a message goes through memory that all of them see, with half as many copies.
"""

import os
import select
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from core.errors import ConfigError, PeerLost
from trainer.shared_memory import SHARED_BYTES, share_memory

AWAKE_SECONDS = 0.1  # without a byte: then the other process is busy with something else
MESSAGE_BYTES = 200_000  # more are quicker through shared memory

Views = dict[int, memoryview]  # what is left to send or to read, by rank


class Mesh:
    """Connections of this process to all others.

    Args:
        rank: of this process.
        peers: the connections by rank.
        memory: of every process, seen by all; by rank. Empty where the system has none to share.
        timeout_seconds: how long to wait for another process.
    """

    def __init__(
        self,
        rank: int,
        peers: dict[int, socket.socket],
        memory: dict[int, Tensor],
        timeout_seconds: float,
    ) -> None:
        self.rank = rank
        self.peers = peers
        self.halves = {rank: whole.view(2, -1) for rank, whole in memory.items()}
        self.half = 0
        self.timeout_seconds = timeout_seconds
        for peer in peers.values():
            peer.setblocking(False)

    def sum(self, own: Tensor) -> Tensor:
        """The sum of every process's ``own``, in place; added up in the order of the ranks.

        Raises:
            PeerLost: another process is gone.
            RuntimeError: it does not answer.
        """
        is_shared = MESSAGE_BYTES < own.nbytes <= SHARED_BYTES // 2 and self.halves
        others = self.share(own) if is_shared else self.exchange(own)
        first, second, *rest = (part for _, part in sorted({**others, self.rank: own}.items()))
        total = torch.add(first, second, out=own if not rest else None)
        for part in rest:
            total = total.add_(part)
        return own.copy_(total) if rest else own

    def share(self, own: Tensor) -> dict[int, Tensor]:
        """The others' tensors, where they have put them; to be read before the next sum.

        The halves take turns: who writes into one again has heard from every other process, and
        that it has begun another sum since, so that it had read what was there.
        """
        parts = {
            rank: halves[self.half, : own.nbytes].view(own.dtype).view(own.shape)
            for rank, halves in self.halves.items()
        }
        self.half = 1 - self.half
        parts.pop(self.rank).copy_(own)
        self.exchange(torch.zeros(1, dtype=torch.uint8))  # it is there
        return parts

    def exchange(self, own: Tensor) -> dict[int, Tensor]:
        """The others' tensors, by rank."""
        others = {rank: torch.empty_like(own) for rank in self.peers}
        to_send = dict.fromkeys(self.peers, as_bytes(own))
        to_read = {rank: as_bytes(part) for rank, part in others.items()}
        since = time.monotonic()
        while to_send or to_read:
            moved = self.send(to_send) + self.read(to_read)
            now = time.monotonic()
            if moved:
                since = now
            elif now - since > self.timeout_seconds:
                raise RuntimeError(f"Timed out waiting for rank {min(to_send | to_read)}")
            elif now - since > AWAKE_SECONDS:
                self.sleep(to_send, to_read)
            else:
                os.sched_yield()
        return others

    def send(self, left: Views) -> int:
        """Bytes sent, without waiting."""
        return sum(self.advance(left, rank, self.peers[rank].send) for rank in list(left))

    def read(self, left: Views) -> int:
        """Bytes read, without waiting."""
        return sum(self.advance(left, rank, self.peers[rank].recv_into) for rank in list(left))

    def advance(self, left: Views, rank: int, move: Callable[[memoryview], int]) -> int:
        try:
            count = move(left[rank])
        except BlockingIOError:
            return 0
        except OSError as error:
            raise PeerLost(f"rank {rank}: {error.strerror}") from error
        if count == 0:
            raise PeerLost(f"rank {rank} has closed the connection")
        left[rank] = left[rank][count:]
        if not left[rank]:
            del left[rank]
        return count

    def sleep(self, to_send: Views, to_read: Views) -> None:
        readers, writers = ([self.peers[rank] for rank in left] for left in (to_read, to_send))
        select.select(readers, writers, [], 1.0)

    def close(self) -> None:
        for peer in self.peers.values():
            peer.close()


def as_bytes(tensor: Tensor) -> memoryview:
    return tensor.view(-1).view(torch.uint8).numpy().data


def connect(store: dist.Store, rank: int, world_size: int, timeout_seconds: float) -> Mesh:
    """Connect every process with every other, in a folder that only this user can enter.

    Args:
        store: of the group, used by nobody else under these names.

    Raises:
        RuntimeError: a process does not come, or not any further.
        PeerLost: a process is gone.
        ConfigError: the folder for temporary files cannot be used.
    """
    folder = Path(tempfile.mkdtemp(prefix="mesh_"))
    peers: dict[int, socket.socket] = {}
    mesh = None
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listen(listener, folder / "socket", world_size)
            listener.settimeout(timeout_seconds)
            store.set(f"mesh/{rank}", str(folder / "socket"))
            meet(listener, store, rank, world_size, timeout_seconds, peers)
        mesh = Mesh(rank, peers, share_memory(rank, peers), timeout_seconds)
    except TimeoutError as error:
        missing = ", ".join(str(r) for r in range(world_size) if r != rank and r not in peers)
        told = f"a connection from rank {missing}" if missing else "another process's memory"
        raise RuntimeError(f"Timed out waiting for {told}") from error
    except (ConnectionError, FileNotFoundError) as error:
        raise PeerLost(f"another process is gone: {error.strerror}") from error
    finally:
        if mesh is None:
            for peer in peers.values():
                peer.close()
        shutil.rmtree(folder, ignore_errors=True)
    return mesh


def listen(listener: socket.socket, address: Path, world_size: int) -> None:
    """Raises: ConfigError."""
    try:
        listener.bind(str(address))
        listener.listen(world_size)
    except OSError as error:
        raise ConfigError(f"cannot listen in {address.parent} (TMPDIR): {error}") from error


def meet(
    listener: socket.socket,
    store: dist.Store,
    rank: int,
    world_size: int,
    timeout_seconds: float,
    peers: dict[int, socket.socket],
) -> None:
    """Fill ``peers``: this process goes to the lower ranks, the higher ones come."""
    for lower in range(rank):
        address = store.get(f"mesh/{lower}").decode()
        peers[lower] = socket.socket(socket.AF_UNIX)
        peers[lower].settimeout(timeout_seconds)
        peers[lower].connect(address)
        peers[lower].sendall(rank.to_bytes(4, "little"))
    for _ in range(rank + 1, world_size):
        peer, _ = listener.accept()
        peer.settimeout(timeout_seconds)
        name = peer.recv(4, socket.MSG_WAITALL)
        if len(name) < 4:
            peer.close()
            raise PeerLost("another process has closed the connection")
        peers[int.from_bytes(name, "little")] = peer
