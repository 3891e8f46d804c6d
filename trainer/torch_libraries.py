"""Load torch's shared libraries while Python is busy with something else."""

import csv  # noqa: F401  (Hydra imports it later, and would wait until all is loaded)
import ctypes
import os
import sys
import threading
from importlib.util import find_spec
from pathlib import Path


def load_early() -> None:
    """Begin to load them in a thread: ``import torch`` later takes a quarter less.

    They are no Python modules, so that the thread needs nothing of Python's. Where it cannot load
    them, nothing is lost: ``import torch`` does it, or says why not.
    """
    if sys.platform == "linux":
        threading.Thread(target=load, daemon=True).start()


def load() -> None:
    """The libraries, in the order of ``torch/__init__.py``."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return
    folder = Path(spec.origin).parent / "lib"
    dlopen = ctypes.CDLL(None).dlopen  # unlike ctypes.CDLL, it lets Python run meanwhile
    dlopen.restype, dlopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
    if dlopen(bytes(folder / "libtorch_global_deps.so"), os.RTLD_NOW | os.RTLD_GLOBAL):
        dlopen(bytes(folder / "libtorch.so"), os.RTLD_NOW)
