"""Which process of a job this is, from the environment that torchrun gives it."""

import os
from contextlib import suppress
from dataclasses import dataclass

from core.records import printable

STORE_FOLDER = "TRAIN_STORE_FOLDER"  # environment: where processes of one machine find each other


@dataclass(frozen=True)
class Ranks:
    """Which process this is. ``rank`` counts over all nodes, the ``local`` ones on this one."""

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
    """Whether this program started the process, and not torchrun or a cluster by hand."""
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
    """A line on the screen before there is a run log, seconds before torch is imported."""
    with suppress(OSError):  # nobody reads it
        if ranks_of_this_process().is_main:
            print(printable(text), flush=True)


def was_restarted() -> bool:
    """Whether torchrun's engine started this process after a failure of its predecessor."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
