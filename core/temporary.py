"""Temporary folders; those left behind by killed processes are removed at the next start."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from core.files import lock

PREFIX = "optimizer_experiments_"
LOCK = ".lock"  # locked by the process that owns the folder

own_folders: set[Path] = set()  # a lock does not exclude its own process


@contextmanager
def temporary_folder() -> Iterator[str]:
    """Create a folder for the duration of the block, and remove those of killed processes."""
    remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    own_folders.add(folder)
    held = lock(folder / LOCK)
    try:
        yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        held.close()
        own_folders.discard(folder)


def remove_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if folder in own_folders or not (folder / LOCK).is_file():
            continue
        with suppress(OSError), closing(lock(folder / LOCK)):  # in use, or another user's
            shutil.rmtree(folder, ignore_errors=True)
