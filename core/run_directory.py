"""Reading what a run directory says of its run."""

from pathlib import Path
from typing import Any

import yaml

from core.errors import ConfigError, reason
from core.records import read_record

TRAINER_DEFAULTS = Path(__file__).parent.parent / "conf" / "trainer" / "default.yaml"


def read_config(file: Path) -> dict[str, Any]:
    """A run's ``config.yaml``; what the trainer has got since the run was made is at its default.

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
    if isinstance(trainer := config.get("trainer"), dict):
        config["trainer"] = yaml.safe_load(TRAINER_DEFAULTS.read_text()) | trainer
    return config


def read_summary(file: Path) -> dict[str, Any]:
    """A run's ``summary.json``; empty where it is missing or damaged."""
    try:
        summary = read_record(file)
    except (OSError, ValueError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}
