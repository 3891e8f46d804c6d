"""Wait for processes, and inspect them through /proc (Linux)."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def wait_until(condition: Callable[[], Any], seconds: float = 120) -> None:
    """Poll until ``condition()`` is true; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(pid: int, name: str = "") -> list[int]:
    """The running children of ``pid`` whose command line contains ``name``."""
    pids: list[int] = []
    with suppress(OSError):  # it ends meanwhile
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            pids += map(int, file.read_text().split())
    return [child for child in pids if name in command_of(child)]


def descendants(pid: int, name: str) -> list[int]:
    """As :func:`children`, including children of children."""
    found = children(pid, name)
    for child in children(pid):
        found += descendants(child, name)
    return found


def is_running(pid: int) -> bool:
    """Whether the process has not ended; an orphan that nobody reaps stays as a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return state not in "ZX"


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:  # it has ended
        return ""
