"""Temporary folders that do not outlive a kill by much: the next start takes them away."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from core.files import lock

PREFIX = "optimizer_experiments_"
LOCK = ".lock"  # held by the process that a folder belongs to

own: set[Path] = set()  # a process's locks do not keep itself out


@contextmanager
def temporary_folder() -> Iterator[str]:
    """A folder for the time of the block; those of processes that were killed are removed."""
    remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    own.add(folder)
    held = lock(folder / LOCK)
    try:
        yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        held.close()
        own.discard(folder)


def remove_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if folder in own or not (folder / LOCK).is_file():
            continue
        with suppress(OSError), closing(lock(folder / LOCK)):  # in use, or another user's
            shutil.rmtree(folder, ignore_errors=True)
