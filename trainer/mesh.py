"""Exchanges of a few numbers among the processes of one machine, amid computation on its CPUs.

Gloo leaves messages to a thread of its own, which on busy processors waits for its turn longer than
a layer computes. Here every process has a connection to every other and reads it itself.
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

from trainer.errors import ConfigError, PeerLost

AWAKE_SECONDS = 0.1  # without a byte: then the other process is busy with something else

Views = dict[int, memoryview]  # what is left to send or to read, by rank


class Mesh:
    """Connections of this process to all others.

    Args:
        rank: of this process.
        peers: the connections by rank.
        timeout_seconds: how long to wait for another process.
    """

    def __init__(self, rank: int, peers: dict[int, socket.socket], timeout_seconds: float) -> None:
        self.rank = rank
        self.peers = peers
        self.timeout_seconds = timeout_seconds
        for peer in peers.values():
            peer.setblocking(False)

    def sum(self, own: Tensor) -> Tensor:
        """The sum of every process's ``own``, in place; added up in the order of the ranks.

        Raises:
            PeerLost: another process is gone.
            RuntimeError: it does not answer.
        """
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
        first, second, *rest = (part for _, part in sorted({**others, self.rank: own}.items()))
        total = torch.add(first, second, out=own if not rest else None)
        for part in rest:
            total = total.add_(part)
        return own.copy_(total) if rest else own

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
        RuntimeError: a process does not come.
        ConfigError: the folder for temporary files cannot be used.
    """
    folder = Path(tempfile.mkdtemp(prefix="mesh_"))
    peers: dict[int, socket.socket] = {}
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.settimeout(timeout_seconds)
            listener.bind(str(folder / "socket"))
            listener.listen(world_size)
            store.set(f"mesh/{rank}", str(folder / "socket"))
            for lower in range(rank):
                peers[lower] = socket.socket(socket.AF_UNIX)
                peers[lower].connect(store.get(f"mesh/{lower}").decode())
                peers[lower].sendall(rank.to_bytes(4, "little"))
            for _ in range(rank + 1, world_size):
                peer, _ = listener.accept()
                peers[int.from_bytes(peer.recv(4, socket.MSG_WAITALL), "little")] = peer
    except TimeoutError as error:
        missing = ", ".join(str(r) for r in range(world_size) if r != rank and r not in peers)
        raise RuntimeError(f"Timed out waiting for a connection from rank {missing}") from error
    except OSError as error:
        raise ConfigError(f"cannot listen in {folder} (TMPDIR): {error}") from error
    finally:
        shutil.rmtree(folder)
    return Mesh(rank, peers, timeout_seconds)
