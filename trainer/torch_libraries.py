"""Load torch's shared libraries while Python is busy with something else."""

import csv  # noqa: F401  (see load_early)
import ctypes
import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from trainer.script import in_background


def load_early() -> None:
    """Begin to load them in a thread: ``import torch`` later takes a quarter less.

    They are no Python modules, so that the thread needs nothing of Python's. Where it cannot load
    them, nothing is lost: ``import torch`` does it, or says why not. Only one library is loaded at
    a time: ``csv``, the one extension module that Hydra imports while it composes (as the files of
    ``sys.modules`` show), would wait for torch's, so it is imported above.
    """
    if sys.platform == "linux":
        in_background(load)


def load() -> None:
    """The libraries, in the order of ``torch/__init__.py``."""
    with suppress(Exception):
        spec = find_spec("torch")
        if spec is None or spec.origin is None:
            return
        folder = Path(spec.origin).parent / "lib"
        dlopen = ctypes.CDLL(None).dlopen  # unlike ctypes.CDLL, it lets Python run meanwhile
        dlopen.restype, dlopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
        if dlopen(bytes(folder / "libtorch_global_deps.so"), os.RTLD_NOW | os.RTLD_GLOBAL):
            dlopen(bytes(folder / "libtorch.so"), os.RTLD_NOW)
