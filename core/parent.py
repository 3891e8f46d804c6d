"""End a child process when its parent has ended, even if the parent was killed."""

import multiprocessing
import os
import signal
import threading
import time
from functools import cache

NOTICING_SECONDS = 0.5
SAVING_SECONDS = 7.0  # so that a child, and then its own children, have ended within ten


def end_with_parent(saves: bool) -> None:
    """End this process when the one that started it is gone; called once by a child.

    Args:
        saves: send SIGTERM first, on which a run saves a checkpoint.
    """
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:  # a cluster manages its own processes
        return
    # with Python 3.14's default, a fork server is the parent that the OS knows
    if os.getppid() != parent.pid and multiprocessing.get_start_method() != "forkserver":
        os.kill(os.getpid(), signal.SIGKILL)  # nothing to save yet
    watch(parent.pid, saves)


@cache
def watch(parent: int, saves: bool) -> None:
    forked_by = os.getppid()  # the parent, or its fork server

    def wait() -> None:
        while os.getppid() == forked_by and exists(parent):
            time.sleep(NOTICING_SECONDS)
        if saves:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(SAVING_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def exists(pid: int) -> bool:
    """Whether this user has a process of that id."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
