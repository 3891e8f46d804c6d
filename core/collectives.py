"""Exchanges between the processes of a run. Without a process group each is the identity."""

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
    """A tensor that FSDP has sharded over the processes in one piece; anything else as it is."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def local_tensor(value: Any) -> Any:
    """This process's share of a tensor that FSDP has sharded; anything else as it is."""
    return value.to_local() if hasattr(value, "to_local") else value


def spread_like(value: Tensor, share: Any) -> Tensor:
    """This process's share of a tensor that every process has, where FSDP has spread ``share``."""
    if not hasattr(share, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor  # costs a second

    mesh, placements = share.device_mesh, share.placements
    return distribute_tensor(value.to(share.device), mesh, placements, src_data_rank=None)


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


def agree(flag: bool) -> bool:
    """Whether ``flag`` is true on any process."""
    if not dist.is_initialized():
        return flag
    return bool(sum_over_ranks(torch.tensor([int(flag)])).item())


@contextmanager
def first_on_node(ranks: Ranks) -> Iterator[None]:
    """The first process of each node goes through the block before the others enter it."""
    if ranks.local_rank:
        gather(None)
    yield
    if not ranks.local_rank:
        gather(None)
