"""Whether a run is shown online; found out before anything that takes time."""

import atexit
import os
import tempfile
from contextlib import ExitStack, suppress
from functools import cache
from importlib import import_module
from typing import Any

from core.errors import ConfigError
from core.temporary import temporary_folder


@cache
def import_client() -> Any:
    """W&B's client: a second, and temporary folders, which are to go even after a kill."""
    held = ExitStack()
    atexit.register(held.close)
    before, tempfile.tempdir = tempfile.tempdir, held.enter_context(temporary_folder())
    try:
        return import_module("wandb")
    finally:
        tempfile.tempdir = before


def choose_mode(mode: str) -> str:
    """``auto`` is ``WANDB_MODE``, else online where W&B finds a key, else offline.

    Raises:
        ConfigError: online without a key. W&B would ask for one, where nobody may be.
    """
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or "auto"
    if mode not in ("auto", "online"):
        return mode
    wandb = import_client()
    wandb.setup(wandb.Settings(silent=True))
    if wandb.login(prompt=False, verify=False):
        return "online"
    if mode == "online":
        raise ConfigError(
            "wandb.mode=online, but there is no API key: run wandb login, set WANDB_API_KEY, or "
            "leave wandb.mode out"
        )
    return "offline"


def check_key(mode: str) -> None:
    """Raises: ConfigError: the run is to be online by the user's word, and there is no key."""
    if "online" in (mode, os.environ.get("WANDB_MODE") if mode == "auto" else None):
        with suppress(ImportError):  # the run says so, and goes on without
            choose_mode("online")
