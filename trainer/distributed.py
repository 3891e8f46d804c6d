"""The process group of a run, and sums over it. One process is a group of one without the group."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.device import choose_accelerator
from trainer.settings import TrainerSettings


@dataclass(frozen=True)
class Ranks:
    """Which process this is. ``rank`` counts over all nodes, ``local_rank`` on this one."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def ranks_of_this_process() -> Ranks:
    if not started_by_torchrun():
        return Ranks()
    return Ranks(
        rank=int(os.environ["RANK"]),
        local_rank=int(os.environ["LOCAL_RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )


@contextmanager
def process_group(settings: TrainerSettings) -> Iterator[Ranks]:
    """Join the group that torchrun's environment describes, if any, and leave it at the end."""
    ranks = ranks_of_this_process()
    if ranks.world_size == 1:
        yield ranks
        return
    backend = "nccl" if choose_accelerator(settings.accelerator) == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=settings.timeout_seconds))
    try:
        yield ranks
        dist.barrier()  # gloo may abort when one process leaves while another still talks
    finally:
        dist.destroy_process_group()


def sum_over_ranks(sums: Tensor) -> Tensor:
    """Element-wise sum over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(sums)
    return sums


def gather(value: Any) -> list[Any]:
    """``value`` of every process, in the order of their ranks."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast(value: Any) -> Any:
    """Rank 0's ``value``, on every process."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


@contextmanager
def first_on_node(ranks: Ranks) -> Iterator[None]:
    """The first process of each node goes through the block before the others enter it."""
    if ranks.local_rank:
        gather(None)
    yield
    if not ranks.local_rank:
        gather(None)


def agree(flag: bool) -> bool:
    """Whether any process says so."""
    if not dist.is_initialized():
        return flag
    return bool(sum_over_ranks(torch.tensor(int(flag))).item())
