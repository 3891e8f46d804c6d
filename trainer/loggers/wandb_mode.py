"""Choose W&B's mode, and check the API key before anything slow starts."""

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
    """Import W&B's client (about a second); its temporary folders are removed even after a kill."""
    held = ExitStack()
    atexit.register(held.close)
    before, tempfile.tempdir = tempfile.tempdir, held.enter_context(temporary_folder())
    try:
        return import_module("wandb")
    finally:
        tempfile.tempdir = before


def choose_mode(mode: str) -> str:
    """``auto`` is ``WANDB_MODE``, else online if W&B finds an API key, else offline.

    Raises:
        ConfigError: if the mode is online and there is no key; W&B would prompt for one.
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
    """Raise ConfigError if the user has asked for online mode and there is no API key."""
    if "online" in (mode, os.environ.get("WANDB_MODE") if mode == "auto" else None):
        with suppress(ImportError):  # the run itself will warn, and continue without W&B
            choose_mode("online")
