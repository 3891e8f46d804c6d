"""The process group of a run, and sums over it. One process is a group of one without the group."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from core.errors import ConfigError, PeerLost
from core.ranks import Ranks, ranks_of_this_process
from core.schema import TrainerSettings
from trainer.distributed.device import choose_device
from trainer.mesh import Mesh, connect

PEER_EXIT_SECONDS = 30.0
ROLL_CALL_SECONDS = 2.0

_mesh: Mesh | None = None  # of the group, where it is on one machine and on CPUs


@contextmanager
def process_group(settings: TrainerSettings) -> Iterator[Ranks]:
    """Join the group that torchrun's environment describes, if any, and leave it at the end.

    Raises:
        ConfigError: torchrun started another number of processes than the config asks for, or
            the accelerator cannot be shared.
    """
    global _mesh
    ranks = ranks_of_this_process()
    if settings.devices not in (1, "auto", ranks.local_world_size):
        raise ConfigError(
            f"trainer.devices={settings.devices}, but torchrun started {ranks.local_world_size} "
            "processes: leave trainer.devices out"
        )
    if ranks.world_size == 1:
        yield ranks
        return
    device = choose_device(settings, ranks.local_rank)  # before anything talks through the GPU
    if device.type == "mps":
        raise ConfigError("several processes need trainer.accelerator=cpu or cuda")
    # gloo carries what is on the CPU, such as metrics and random states
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(seconds=settings.timeout_seconds)
    engine_store, _, _ = next(dist.rendezvous("env://", timeout=timeout))
    name = group_name(engine_store, ranks, settings.timeout_seconds)
    store = dist.PrefixStore(name, engine_store)
    dist.init_process_group(
        backend,
        timeout=timeout,
        store=store,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    try:
        if device.type == "cpu" and ranks.world_size == ranks.local_world_size:
            _mesh = connect(store, ranks.rank, ranks.world_size, settings.timeout_seconds)
        yield ranks
        dist.barrier()  # gloo may abort when one process leaves while another still talks
    except RuntimeError as error:
        if lost_a_peer(error) and not (isinstance(error, PeerLost) and error.is_told):
            time.sleep(PEER_EXIT_SECONDS)  # torchrun ends this process as soon as it sees why
        if "Timed out" not in str(error):
            raise
        silent = ", ".join(map(str, silent_ranks(store, ranks))) or "?"
        raise RuntimeError(
            f"{error} (rank {silent} did not answer within trainer.timeout_seconds)"
        ) from error
    finally:
        if _mesh is not None:
            _mesh.close()
            _mesh = None
        dist.destroy_process_group()


def group_name(store: dist.Store, ranks: Ranks, timeout_seconds: float) -> str:
    """A name for the group that is about to form, the same on every process and never used before.

    torchrun's store outlives a group, and its processes when they are started again: under an old
    name they would meet the addresses of their predecessors. Restarts are counted on each node
    differently, so rank 0 chooses the name, and shows each of the others that it is alive.

    Raises:
        TimeoutError: rank 0 does not answer.
    """
    own = secrets.token_hex(8)
    if ranks.is_main:
        store.set("group", own)
        for rank in range(1, ranks.world_size):
            guest = store.get(f"{own}/{rank}").decode()
            store.set(f"{own}/{guest}", "welcome")
        return own
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        name = store.get("group").decode()  # of the last group, perhaps
        store.set(f"{name}/{ranks.rank}", own)
        if store.check([f"{name}/{own}"]):
            return name
        time.sleep(0.01)
    raise TimeoutError("Timed out: rank 0 did not join the process group")


def silent_ranks(store: dist.Store, ranks: Ranks) -> list[int]:
    """The processes that do not say, soon after this one has waited in vain, that they wait too."""
    try:
        store.set(f"waiting/{ranks.rank}", "")
        time.sleep(ROLL_CALL_SECONDS)
        return [r for r in range(ranks.world_size) if not store.check([f"waiting/{r}"])]
    except RuntimeError:  # the store is gone, too
        return []


def lost_a_peer(error: RuntimeError) -> bool:
    """Whether another process is gone, which then is the one to report."""
    text = str(error)
    return isinstance(error, PeerLost | dist.DistBackendError) or (
        "gloo/transport" in text and "Timed out" not in text
    )


def sum_over_ranks(sums: Tensor) -> Tensor:
    """Element-wise sum over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(sums)
    return sums


def sum_amid_computation(sums: Tensor) -> Tensor:
    """Element-wise sum over all processes, in place; for a few numbers that all CPUs wait for."""
    return sum_over_ranks(sums) if _mesh is None else _mesh.sum(sums)


def whole(value: Any) -> Any:
    """A tensor that FSDP has spread over the processes in one piece; others as they are."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


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
    return bool(sum_amid_computation(torch.tensor([int(flag)])).item())
