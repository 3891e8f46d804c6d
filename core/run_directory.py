"""Read the config and the summary of a run directory."""

from pathlib import Path
from typing import Any

import yaml

from core.errors import ConfigError, reason
from core.records import read_record

TRAINER_DEFAULTS = Path(__file__).parent.parent / "conf" / "trainer" / "default.yaml"


def read_config(file: Path) -> dict[str, Any]:
    """Read a run's ``config.yaml``; trainer settings added since the run get their defaults.

    Raises:
        ConfigError: if it is missing or damaged.
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
    """Read a run's ``summary.json``; empty if it is missing or damaged."""
    try:
        summary = read_record(file)
    except (OSError, ValueError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}
