"""Files written in one piece, so that a reader sees the old one or the new one; locks."""

import fcntl
import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from core.errors import ConfigError

FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO without a reader is an error


def no_link(path: str, flags: int) -> int:
    """An opener for ``open``: a run directory of a stranger may hold a link to a file elsewhere."""
    return os.open(path, flags | FLAGS, 0o666)


def lock(file: Path, wait: bool = False) -> IO[str]:
    """Lock a file until it is closed or the process ends, however it ends.

    Children of the process do not inherit the lock.

    Raises:
        BlockingIOError: another process has the lock, and ``wait`` is false.
    """
    opened = open(os.open(file, os.O_RDWR | os.O_CREAT | FLAGS, 0o666), "w")  # noqa: SIM115
    try:
        fcntl.lockf(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        opened.close()
        raise
    except OSError:
        pass  # a file system without locks
    return opened


def write_json(content: Any, file: Path) -> None:
    """Write strict JSON in one piece."""
    write_text(json.dumps(without_nan(content), indent=2) + "\n", file)


def write_text(text: str, file: Path) -> None:
    """Write in one piece: a reader sees the old file or the new one, never a half."""
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with open(temporary, "x", encoding="utf-8") as opened:
            opened.write(text)
        os.replace(temporary, file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        why = error.strerror if file.parent.is_dir() else "its folder is not there"
        raise ConfigError(f"cannot write {file}: {why}") from error


def without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [without_nan(item) for item in value]
    return value


def why_not_writable(folder: str) -> str:
    """What is wrong with a folder that takes no 64 KiB more; empty if it does."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * (64 << 10))
            probe.flush()
    except OSError as error:
        return str(error.strerror)
    return ""
