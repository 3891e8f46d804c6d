"""Rank and world size of this process, from the environment variables that torchrun sets."""

import os
from contextlib import suppress
from dataclasses import dataclass

from core.records import printable

STORE_FOLDER = "TRAIN_STORE_FOLDER"  # environment: rendezvous folder of a single machine


@dataclass(frozen=True)
class Ranks:
    """Rank and world size: ``rank`` counts over all nodes, the ``local`` ones within this node."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def started_by_launch() -> bool:
    """Whether this program started the process, rather than a user's torchrun command."""
    return STORE_FOLDER in os.environ


def ranks_of_this_process() -> Ranks:
    if not started_by_torchrun():
        return Ranks()
    return Ranks(
        rank=int(os.environ["RANK"]),
        local_rank=int(os.environ["LOCAL_RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        local_world_size=int(os.environ["LOCAL_WORLD_SIZE"]),
    )


def announce(text: str) -> None:
    """Print a line on rank 0 before there is a run log."""
    with suppress(OSError):  # stdout is closed
        if ranks_of_this_process().is_main:
            print(printable(text), flush=True)


def was_restarted() -> bool:
    """Whether torchrun's engine restarted this process after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
