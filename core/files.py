"""Atomic file writes, and file locks."""

import fcntl
import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from core.errors import ConfigError

FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO fails instead of blocking


def no_link(path: str, flags: int) -> int:
    """An opener for ``open`` that refuses symbolic links, which an untrusted folder may hold."""
    return os.open(path, flags | FLAGS, 0o666)


def lock(file: Path, wait: bool = False) -> IO[str]:
    """Lock a file until it is closed or the process ends; child processes do not inherit the lock.

    Raises:
        BlockingIOError: if another process holds the lock and ``wait`` is false.
    """
    opened = open(os.open(file, os.O_RDWR | os.O_CREAT | FLAGS, 0o666), "w")  # noqa: SIM115
    try:
        fcntl.lockf(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        opened.close()
        raise
    except OSError:
        pass  # the file system has no locks
    return opened


def write_json(content: Any, file: Path) -> None:
    """Write strict JSON atomically."""
    write_text(json.dumps(without_nan(content), indent=2) + "\n", file)


def write_text(text: str, file: Path) -> None:
    """Write atomically: a reader sees the old file or the new one, never a part of it."""
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with open(temporary, "x", encoding="utf-8") as opened:
            opened.write(text)
        os.replace(temporary, file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        why = error.strerror if file.parent.is_dir() else "its folder does not exist"
        raise ConfigError(f"cannot write {file}: {why}") from error


def without_nan(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, with null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [without_nan(item) for item in value]
    return value


def why_not_writable(folder: str) -> str:
    """Why 64 KiB cannot be written to a folder; empty if they can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * (64 << 10))
            probe.flush()
    except OSError as error:
        return str(error.strerror)
    return ""
