"""Memory that the processes of one machine see alike, passed on over their connections."""

import mmap
import os
import socket

import torch
from torch import Tensor

from core.errors import PeerLost

SHARED_BYTES = 32_000_000  # of each process; what is never written takes no memory


def share_memory(rank: int, peers: dict[int, socket.socket]) -> dict[int, Tensor]:
    """Memory of every process by rank, ``SHARED_BYTES`` each; none if any process cannot have it.

    It has no name and no place in any folder, and is gone with the last process that has it.

    Raises:
        PeerLost: another process is gone.
        OSError: another process is gone, or does not answer.
    """
    own = new_memory()
    files = {} if own is None else {rank: own}
    try:
        for peer in peers.values():
            if own is None:
                peer.sendall(b"-")
            else:
                socket.send_fds(peer, [b"+"], [own])
        for other, peer in peers.items():
            answer, received, _, _ = socket.recv_fds(peer, 1, 1)
            check_answer(answer, other)
            if received:
                files[other] = received[0]
        memory = map_memory(files) if len(files) == len(peers) + 1 else {}
    finally:
        for file in files.values():
            os.close(file)
    # all or none: what one process puts there, no other must expect from its connection
    for peer in peers.values():
        peer.sendall(b"+" if memory else b"-")
    answers = [check_answer(peer.recv(1), other) for other, peer in peers.items()]
    return memory if b"-" not in answers else {}


def check_answer(answer: bytes, rank: int) -> bytes:
    """Raises: PeerLost."""
    if not answer:
        raise PeerLost(f"rank {rank} has closed the connection")
    return answer


def new_memory() -> int | None:
    """A file that is memory alone; None where the system has none (macOS) or gives none."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        file = os.memfd_create("sums")
    except OSError:
        return None
    try:
        os.ftruncate(file, SHARED_BYTES)
    except OSError:
        os.close(file)
        return None
    return file


def map_memory(files: dict[int, int]) -> dict[int, Tensor]:
    """The contents of the files; none if the system refuses any."""
    try:
        maps = {rank: mmap.mmap(file, SHARED_BYTES) for rank, file in files.items()}
    except (OSError, ValueError):
        return {}
    return {rank: torch.frombuffer(whole, dtype=torch.uint8) for rank, whole in maps.items()}
