"""Collectives over the processes of a run. Without a process group they return local values."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from core.ranks import Ranks


def sum_over_ranks(sums: Tensor) -> Tensor:
    """Element-wise sum over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(sums)
    return sums


def mean_over_ranks(values: Tensor) -> Tensor:
    """Element-wise mean over all processes, in place."""
    return sum_over_ranks(values).div_(dist.get_world_size() if dist.is_initialized() else 1)


def full_tensor(value: Any) -> Any:
    """Gather a tensor that FSDP has sharded; returns any other value unchanged."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def local_tensor(value: Any) -> Any:
    """This rank's shard of a tensor that FSDP has sharded; returns any other value unchanged."""
    return value.to_local() if hasattr(value, "to_local") else value


def shard_like(value: Tensor, reference: Any) -> Tensor:
    """Shard a replicated ``value`` like ``reference``; unchanged if that is not sharded."""
    if not hasattr(reference, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor  # the import takes a second

    mesh, placements = reference.device_mesh, reference.placements
    return distribute_tensor(value.to(reference.device), mesh, placements, src_data_rank=None)


def gather(value: Any) -> list[Any]:
    """All-gather: ``value`` of every rank, in rank order."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast(value: Any) -> Any:
    """Broadcast rank 0's ``value`` to every rank."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def agree(flag: bool) -> bool:
    """Whether ``flag`` is true on any rank."""
    if not dist.is_initialized():
        return flag
    return bool(sum_over_ranks(torch.tensor([int(flag)])).item())


@contextmanager
def local_main_process_first(ranks: Ranks) -> Iterator[None]:
    """Run the block on the first process of each node before the others enter it."""
    if ranks.local_rank:
        gather(None)
    yield
    if not ranks.local_rank:
        gather(None)
