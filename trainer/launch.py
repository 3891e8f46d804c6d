"""Start the processes of a job."""

from collections.abc import Callable
from typing import Any

from trainer.errors import ConfigError
from trainer.records import Job

Run = Callable[[dict[str, Any], Job], float]


def launch(run: Run, config: dict[str, Any], job: Job) -> float:
    """Call ``run(config, job)`` in as many processes as ``trainer.devices`` asks for."""
    if config["trainer"]["devices"] not in (1, "auto"):
        raise ConfigError(f"trainer.devices={config['trainer']['devices']} is not supported yet")
    return run(config, job)
