"""The process group of a run. A single process runs without one."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from pathlib import Path

import torch.distributed as dist

from core.errors import ConfigError, Interrupted
from core.ranks import STORE_FOLDER, Ranks, ranks_of_this_process
from core.schema import TrainerSettings
from trainer.distributed.device import choose_device

PEER_EXIT_SECONDS = 30.0

groups_made = count()  # equal on all processes, since each creates every group


@contextmanager
def process_group(settings: TrainerSettings) -> Iterator[Ranks]:
    """Join the process group described by torchrun's environment, if any; destroy it at the end.

    Raises:
        ConfigError: if torchrun started another number of processes than the config asks for, or
            the accelerator does not support several processes.
        RuntimeError: if another process does not respond within ``trainer.timeout_seconds``.
    """
    ranks = ranks_of_this_process()
    if settings.devices not in (1, "auto", ranks.local_world_size):
        raise ConfigError(
            f"trainer.devices={settings.devices}, but torchrun started {ranks.local_world_size} "
            "processes: leave trainer.devices out"
        )
    if ranks.world_size == 1:
        yield ranks
        return
    device = choose_device(settings, ranks.local_rank)  # before any GPU communication
    if device.type == "mps":
        raise ConfigError("several processes need trainer.accelerator=cpu or cuda")
    timeout = timedelta(seconds=settings.timeout_seconds)
    dist.init_process_group(
        # gloo handles CPU tensors and objects, such as metrics
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        timeout=timeout,
        store=group_store(ranks, timeout),
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    try:
        yield ranks
        dist.barrier()  # gloo may abort if a process leaves while another communicates
    except Interrupted as interrupted:
        if interrupted.is_agreed:
            with suppress(RuntimeError):
                dist.barrier()  # wait until rank 0 has saved
        raise
    except RuntimeError as error:
        if "Expected to have finished reduction" in str(error):  # DDP's error
            raise ConfigError(
                "some parameters do not contribute to the loss, such as those of an auxiliary "
                "output, which DDP does not support: freeze them with "
                "param_groups.rules=[{match: NAME, freeze: true}]"
            ) from error
        is_late = "Timed out" in str(error)
        is_gone = "gloo/transport" in str(error) and not is_late
        if is_gone or isinstance(error, dist.DistBackendError):  # a peer has failed
            time.sleep(PEER_EXIT_SECONDS)  # let the engine see its exit first, and stop this one
        if is_late:
            raise RuntimeError(
                f"a process did not answer within trainer.timeout_seconds: {error}"
            ) from error
        raise
    finally:
        dist.destroy_process_group()


def group_store(ranks: Ranks, timeout: timedelta) -> dist.Store:
    """The key-value store of the group's rendezvous; no earlier group has written to it.

    An older store has stale addresses, of processes before a restart or of an earlier run in the
    same process.
    """
    attempt = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}_{next(groups_made)}"
    if STORE_FOLDER in os.environ:
        file = Path(os.environ[STORE_FOLDER]) / f"attempt_{attempt}"
        return dist.FileStore(str(file), ranks.world_size)
    store, _, _ = next(dist.rendezvous("env://", timeout=timeout))
    if ranks.world_size == ranks.local_world_size:
        return dist.PrefixStore(f"attempt_{attempt}", store)
    return store  # each node counts its own attempts
