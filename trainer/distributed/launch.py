"""Start the processes of a job, if it needs several.

They get the resolved config and the job as plain data and use neither Hydra nor the command line,
so every job of a sweep can have its own processes.
"""

import inspect
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import ConfigError, reason
from core.job import Job
from core.ranks import started_by_torchrun
from core.schema import TrainerSettings

Run = Callable[[dict[str, Any], Job], float]
NAME_SECONDS = 10


def launch(run: Run, config: dict[str, Any], job: Job) -> float:
    """Call ``run(config, job)`` in as many processes as the config asks for.

    Args:
        run: a module-level function, also one of the main script.
        config: the resolved and checked config.

    Returns:
        The return value of rank 0.

    Raises:
        ConfigError, Diverged, Interrupted: as raised in a process.
        RankFailed: if a process raised anything else, or was killed.
    """
    settings = TrainerSettings(**config["trainer"])
    count = processes_per_node(settings)
    if started_by_torchrun() and job.sweep is not None:
        raise ConfigError(
            "a sweep starts the processes of its jobs itself: run it without torchrun"
        )
    if started_by_torchrun() or (count * settings.num_nodes == 1 and not settings.max_restarts):
        return run(config, job)
    host, _, port = (settings.rdzv_endpoint or "").rpartition(":")
    if settings.num_nodes > 1 and not (host and port.isdecimal() and int(port) < 2**16):
        raise ConfigError(
            f"trainer.num_nodes={settings.num_nodes} needs trainer.rdzv_endpoint=host:port, the "
            f"same on every node; it is {settings.rdzv_endpoint}"
        )
    if settings.num_nodes > 1:
        wait_for_name(host)
    from trainer.distributed.elastic import launch_workers  # imports torch's engine

    return launch_workers(settings, count, import_path(run), config, job)


def wait_for_name(host: str) -> None:
    """Wait until ``host`` resolves, which can take a moment when a cluster has just started.

    Raises:
        ConfigError: if it does not within ``NAME_SECONDS``; the engine would wait for minutes.
    """
    end = time.monotonic() + NAME_SECONDS
    while True:
        try:
            socket.getaddrinfo(host, None)
            return
        except OSError as error:
            if time.monotonic() > end:
                raise ConfigError(
                    f"trainer.rdzv_endpoint: cannot resolve the host {host}: {reason(error)}"
                ) from error
        time.sleep(1)


def processes_per_node(settings: TrainerSettings) -> int:
    """``trainer.devices``; ``auto`` is one per visible GPU, or 1 without GPUs."""
    if settings.devices != "auto":
        return settings.devices
    import torch

    from trainer.distributed.device import choose_accelerator

    is_cuda = choose_accelerator(settings.accelerator) == "cuda"
    return torch.cuda.device_count() if is_cuda else 1


def import_path(run: Run) -> tuple[str, str]:
    """Module and function name to import ``run`` by; a script is imported under its file name."""
    is_script = run.__module__ == "__main__"
    return Path(inspect.getfile(run)).stem if is_script else run.__module__, run.__name__
