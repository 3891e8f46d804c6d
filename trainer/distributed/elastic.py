"""Start torchrun's engine (torchelastic) in-process, and translate its errors."""

import importlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from core import errors
from core.job import Job
from core.named_lines import VARIABLE, name_lines
from core.parent import end_with_parent
from core.ranks import STORE_FOLDER
from core.schema import TrainerSettings
from core.temporary import temporary_folder
from trainer.signals import STOP_SIGNALS, stop_signals_call

RENDEZVOUS_SECONDS = 900


def launch_workers(
    settings: TrainerSettings, count: int, run: tuple[str, str], config: dict[str, Any], job: Job
) -> Any:
    """Run :func:`worker` in ``count`` processes on each node."""
    is_one_node = settings.num_nodes == 1
    # otherwise a restarted job would find stale addresses in the engine's store
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    with temporary_folder() as folder:
        engine = LaunchConfig(
            min_nodes=settings.num_nodes,
            max_nodes=settings.num_nodes,
            nproc_per_node=count,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            # shared by the nodes of a job, different for each job of a sweep
            run_id="job" if job.sweep is None else f"job_{job.path.name}",
            rdzv_backend="c10d",
            # on one machine, a file that only this user can write; a port would be open to others
            rdzv_endpoint=f"{folder}/rendezvous" if is_one_node else settings.rdzv_endpoint or "",
            rdzv_configs={
                "timeout": RENDEZVOUS_SECONDS,
                "store_type": "file" if is_one_node else "tcp",
            },
            local_addr="127.0.0.1" if is_one_node else None,
            max_restarts=settings.max_restarts,
            signals_to_handle="",  # stop_engine handles them
            start_method="spawn",
        )
        store_folder = folder if is_one_node else None
        try:
            with quiet_engine(), stop_signals_call(stop_engine):
                values = elastic_launch(engine, worker)(store_folder, run, config, job)
        except ChildFailedError as failed:
            raise exception_of(failed) from None
        except SignalException as stopped:
            raise errors.Interrupted(int(stopped.sigval)) from None
        except RendezvousError as lost:
            raise errors.RankFailed(
                f"trainer.rdzv_endpoint={settings.rdzv_endpoint}: another node has exited or is "
                f"unreachable: {errors.reason(lost)}"
            ) from None
    return values[min(values)]


def stop_engine(number: int, frame: FrameType | None) -> NoReturn:
    """Signal handler: the engine forwards the signal to its workers and waits for them to exit."""
    for other in STOP_SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise SignalException("asked to stop", signal.Signals(number))


@contextmanager
def quiet_engine() -> Iterator[None]:
    """Silence the engine's logging: its errors are reported here instead."""
    method = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)  # children do not know joblib's method
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        multiprocessing.set_start_method(method, force=True)


def worker(
    store_folder: str | None, run: tuple[str, str], config: dict[str, Any], job: Job
) -> float:
    """Entry point of every worker process.

    Args:
        store_folder: folder of the processes' file store; None if they run on several nodes.
    """
    end_with_parent(saves=True)
    if VARIABLE in os.environ:
        name_lines(os.environ[VARIABLE])
    if store_folder is not None:
        os.environ[STORE_FOLDER] = store_folder
        loopback = {name for _, name in socket.if_nameindex()} & {"lo", "lo0"}
        os.environ.setdefault("GLOO_SOCKET_IFNAME", ",".join(loopback))
    module, name = run
    try:
        return getattr(importlib.import_module(module), name)(config, job)
    except Exception:
        if os.environ["TORCHELASTIC_RESTART_COUNT"] != os.environ["TORCHELASTIC_MAX_RESTARTS"]:
            traceback.print_exc()  # the engine restarts the job without saying why
        raise
    except errors.Interrupted as interrupted:
        parent = multiprocessing.parent_process()
        has_parent = parent is not None and parent.pid == os.getppid()
        if interrupted.is_agreed and has_parent:  # the engine must not restart the job
            os.kill(os.getppid(), interrupted.signal)
        sys.exit(interrupted.exit_code)


def exception_of(failed: ChildFailedError) -> BaseException:
    """The exception to raise in the launcher for the worker that failed first."""
    rank, failure = failed.get_first_failure()
    if isinstance(failure.message, dict):
        kind, _, text = failure.message["message"].partition(": ")
        for known in (errors.ConfigError, errors.RunInUse, errors.OutOfMemory, errors.Diverged):
            if kind == known.__name__:
                return known(text)
        callstack = failure.message["extraInfo"]["py_callstack"]
        return errors.RankFailed(f"rank {rank}: {kind}: {text}", callstack)
    if failure.exitcode - 128 in STOP_SIGNALS:
        return errors.Interrupted(failure.exitcode - 128)
    cause = failure.signal_name() if failure.exitcode < 0 else f"exit code {failure.exitcode}"
    return errors.RankFailed(f"the process of rank {rank} ended with {cause}")
