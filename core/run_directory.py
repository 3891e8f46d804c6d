"""Reading what a run directory says of its run."""

from pathlib import Path
from typing import Any

from core.errors import ConfigError, reason
from core.records import read_record


def read_config(file: Path) -> dict[str, Any]:
    """A run's ``config.yaml``.

    Raises:
        ConfigError: it is missing or damaged.
    """
    try:
        config = read_record(file)
    except FileNotFoundError:
        raise ConfigError(f"{file.parent} is not a run directory: it has no {file.name}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} is damaged: {reason(error)}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{file} is damaged: it holds no settings")
    return config


def read_summary(file: Path) -> dict[str, Any]:
    """A run's ``summary.json``; empty where it is missing or damaged."""
    try:
        summary = read_record(file)
    except (OSError, ValueError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}
