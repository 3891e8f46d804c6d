"""A child ends when its parent has, however that ended."""

import multiprocessing
import os
import signal
import threading
import time
from functools import cache

NOTICING_SECONDS = 0.5
SAVING_SECONDS = 7.0  # so a child and then its own children are gone within ten


def end_with_parent(saves: bool) -> None:
    """Called by a child once: end when the process that started it is gone.

    Args:
        saves: by SIGTERM first, which a run answers by saving what it has reached.
    """
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:  # a cluster looks after its own processes
        return
    # a server that forks for the parent is Python 3.14's way
    if os.getppid() != parent.pid and multiprocessing.get_start_method() != "forkserver":
        os.kill(os.getpid(), signal.SIGKILL)  # nothing has begun
    watch(parent.pid, saves)


@cache
def watch(parent: int, saves: bool) -> None:
    forked_by = os.getppid()  # the parent, or its server

    def wait() -> None:
        while os.getppid() == forked_by and exists(parent):
            time.sleep(NOTICING_SECONDS)
        if saves:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(SAVING_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def exists(pid: int) -> bool:
    """Whether there is such a process of this user."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
