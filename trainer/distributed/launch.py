"""Start the processes of a job with torchrun's own engine, and bring back what rank 0 returns.

The processes get the resolved config and the job as plain data; they never meet Hydra or the
command line again, which is what lets every job of a sweep have processes of its own.
"""

import importlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from types import FrameType
from typing import Any

from core.errors import ConfigError, Diverged, Interrupted, RankFailed
from core.job import Job
from core.ranks import started_by_torchrun
from core.schema import TrainerSettings, check_settings
from trainer.signals import heeded

Run = Callable[[dict[str, Any], Job], float]

RENDEZVOUS_SECONDS = 900
SAVING_SECONDS = 30.0
LONGEST_TEMPORARY = 70  # characters; the system's limit for the path of a socket is 107
ENVIRONMENT_AT_IMPORT = dict(os.environ)


def launch(run: Run, config: dict[str, Any], job: Job) -> float:
    """Call ``run(config, job)`` in as many processes as the config asks for.

    Args:
        run: a function of a module, or of the script itself.

    Returns:
        What rank 0 returned.

    Raises:
        ConfigError, Diverged, Interrupted: as raised in a process.
        RankFailed: a process raised anything else, or was killed.
    """
    settings = check_settings(config)
    count = processes_per_node(settings)
    if started_by_torchrun() and job.sweep is not None:
        raise ConfigError(
            "a sweep starts the processes of its jobs itself: run it without torchrun"
        )
    if started_by_torchrun() or count * settings.num_nodes == 1:
        return run(config, job)
    return launch_workers(settings, count, import_path(run), config, job)


def processes_per_node(settings: TrainerSettings) -> int:
    """``trainer.devices``; ``auto`` is every visible GPU, else one process."""
    if settings.devices != "auto":
        return settings.devices
    import torch

    from trainer.distributed.device import choose_accelerator

    is_cuda = choose_accelerator(settings.accelerator) == "cuda"
    return torch.cuda.device_count() if is_cuda else 1


def import_path(run: Run) -> tuple[str, str]:
    """Where another process finds ``run``; a script is imported under its file's name."""
    module = run.__module__
    if module == "__main__":
        module = Path(run.__code__.co_filename).stem
    return module, run.__name__


def launch_workers(settings: TrainerSettings, count: int, run: tuple[str, str], *data: Any) -> Any:
    """Run :func:`worker` in ``count`` processes on each node."""
    method = start_method(run[0])
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    is_one_node = settings.num_nodes == 1
    check_endpoint(settings)
    with (
        tempfile.TemporaryDirectory(prefix="launch_") as folder,
        engine_manners(method),
        told_to_end(folder) as told,
    ):
        engine = LaunchConfig(
            min_nodes=settings.num_nodes,
            max_nodes=settings.num_nodes,
            nproc_per_node=count,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            run_id=run_id(data[-1]),
            rdzv_backend="c10d",
            rdzv_endpoint=settings.rdzv_endpoint or "127.0.0.1:0",  # 0: the system chooses
            rdzv_configs={"timeout": RENDEZVOUS_SECONDS},
            local_addr="127.0.0.1" if is_one_node else None,
            max_restarts=settings.max_restarts,
            signals_to_handle="",  # told_to_end does
            start_method=method,
        )
        try:
            values = elastic_launch(engine, worker)(dict(os.environ), told, *run, *data)
        except ChildFailedError as failed:
            raise as_raised(failed) from None
        except SignalException as stopped:
            raise Interrupted(int(stopped.sigval)) from None
        except RendezvousError as lost:
            reason = str(lost).splitlines()[0]
            raise RankFailed(f"another node is gone or cannot be reached: {reason}") from None
    value = values[min(values)]
    if isinstance(value, Interrupted):
        raise value
    return value


def check_endpoint(settings: TrainerSettings) -> None:
    """Raises: ConfigError: there is no ``trainer.rdzv_endpoint``, or no machine of its name."""
    endpoint = settings.rdzv_endpoint
    if endpoint is None:
        if settings.num_nodes == 1:
            return
        raise ConfigError(
            f"trainer.num_nodes={settings.num_nodes} needs trainer.rdzv_endpoint=host:port, the "
            "same on every node"
        )
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(f"trainer.rdzv_endpoint={endpoint} should be host:port")
    try:
        socket.getaddrinfo(host.strip("[]"), port)
    except OSError as error:
        raise ConfigError(
            f"trainer.rdzv_endpoint={endpoint}: no machine is found under this name: "
            f"{error.strerror}"
        ) from error


def start_method(module: str) -> str:
    """How processes are started: forked from a server that has imported what they need.

    It is started here and serves all jobs of a sweep. Having imported torch but never touched a
    GPU, what it forks can use CUDA, which what this process forks could not. macOS has libraries
    that do not survive a fork: there every process imports everything anew.

    Args:
        module: of the function that they run.
    """
    if sys.platform != "linux":
        return "spawn"
    make_importable()
    if len(tempfile.gettempdir()) > LONGEST_TEMPORARY:
        raise ConfigError(f"TMPDIR={tempfile.gettempdir()} is too long for sockets: shorten it")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["trainer.preloading", module])
    forkserver.ensure_running()  # it imports while this process imports the engine
    return "forkserver"


def make_importable() -> None:
    """Let the processes that this one starts import the project's rooms, wherever they run."""
    os.environ["PYTHONPATH"] = python_path()


def python_path() -> str:
    """What ``PYTHONPATH`` should be for that."""
    root = str(Path(__file__).parent.parent.parent)
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys(filter(None, [root, *others])))


def run_id(job: Job) -> str:
    """A name that the nodes of a job have in common, and the jobs of a sweep have not."""
    return "job" if job.sweep is None else f"job_{job.path.name}"


def worker(
    environment: dict[str, str],
    told: Path,
    module: str,
    name: str,
    config: dict[str, Any],
    job: Job,
) -> Any:
    """What every started process does.

    Args:
        environment: of the parent when the job began, which the server may not know.
        told: exists when the engine was told to end.
    """
    os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, and from there each process once
    threading.Thread(target=end_with_parent, daemon=True).start()
    set_by_engine = dict(os.environ.items() - ENVIRONMENT_AT_IMPORT.items())
    os.environ.update(environment | set_by_engine)
    run = getattr(importlib.import_module(module), name)
    try:
        value = run(config, job)
    except Exception as error:
        if restarts_are_left() and not isinstance(error, ConfigError):
            traceback.print_exc()  # the engine starts the job again, and says nothing
        raise
    except Interrupted as interrupted:
        value = interrupted  # not a failure: the engine must not start the job again
        is_told = told.exists()
        has_other_nodes = os.environ["WORLD_SIZE"] != os.environ["LOCAL_WORLD_SIZE"]
        if not is_told and (has_other_nodes or not interrupted.is_agreed):
            # or it waits: minutes for the other node's engine, forever for the other processes
            tell_parent(interrupted.signal)
            is_told = True
        if is_told:  # then the engine does not read the value any more
            sys.stdout.flush()
            os._exit(interrupted.exit_code)
    return value


def restarts_are_left() -> bool:
    return os.environ["TORCHELASTIC_RESTART_COUNT"] != os.environ["TORCHELASTIC_MAX_RESTARTS"]


def tell_parent(number: int) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        os.kill(parent.pid, number)


def end_with_parent() -> None:
    """Save and end when the parent was killed: it would start the job again beside this one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        save_and_end()


def save_and_end() -> None:
    """SIGTERM to this process until it is gone: the first lets a job save."""
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SAVING_SECONDS)


def as_raised(failed: Any) -> Exception:
    """The exception to raise here for the process that failed first."""
    rank, failure = failed.get_first_failure()
    if not isinstance(failure.message, dict):
        cause = failure.signal_name() if failure.exitcode < 0 else f"exit code {failure.exitcode}"
        return RankFailed(f"the process of rank {rank} ended with {cause}")
    kind, _, text = failure.message["message"].partition(": ")
    for known in (ConfigError, Diverged):
        if kind == known.__name__:
            return known(text)
    return RankFailed(f"rank {rank}: {kind}: {text}", failure.message["extraInfo"]["py_callstack"])


@contextmanager
def engine_manners(method: str) -> Iterator[None]:
    """Keep the engine from reporting what is reported here.

    Args:
        method: what the processes it starts find as their own way to start processes: in a worker
            of joblib's it would be one that only joblib knows.
    """
    method_before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # this process only waits: the engine alone logs here
    try:
        yield
    finally:
        logging.disable(before)
        multiprocessing.set_start_method(method_before, force=True)


@contextmanager
def told_to_end(folder: str) -> Iterator[Path]:
    """End the engine at a signal, and leave a file that tells the processes of it."""
    from torch.distributed.elastic.multiprocessing import SignalException

    told = Path(folder) / "told"

    def end(number: int, frame: FrameType | None) -> None:
        told.touch()
        raise SignalException("told to end", signal.Signals(number))

    is_main_thread = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.signal(number, end) for number in heeded() if is_main_thread}
    try:
        yield told
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
