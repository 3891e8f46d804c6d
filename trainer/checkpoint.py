"""Checkpoint files: tensors and primitives only, written so that no interruption can spoil them."""

import os
import random
from pathlib import Path
from typing import Any

import torch

from trainer.errors import ConfigError

FORMAT_VERSION = 1
KEYS = (
    "model",
    "ema",
    "optimizers",
    "schedulers",
    "scaler",
    "rng",
    "data",
    "counters",
    "wandb",
    "format_version",
)


def save(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint to a temporary file, flush it to disk, then rename it over ``path``."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"cannot write the checkpoint {path}: {error.strerror}") from error


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in the file is executed.

    Raises:
        ConfigError: there is no such file, it is damaged, or it is no checkpoint of this program.
    """
    if not path.is_file():
        raise ConfigError(f"there is no checkpoint {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file raises
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"the checkpoint {path} is damaged: {reason}") from error
    if not isinstance(content, dict) or not set(KEYS) <= set(content):
        raise ConfigError(f"{path} is not a checkpoint of this program")
    if content["format_version"] != FORMAT_VERSION:
        raise ConfigError(
            f"{path} has format {content['format_version']}, this program reads {FORMAT_VERSION}"
        )
    return content


def random_state(device: torch.device) -> dict[str, Any]:
    """The random state of this process, as tensors and primitives."""
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "python": [version, list(internal), gauss],
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
