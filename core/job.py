"""The job that a run is: where it belongs and how it was asked for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """Where a run belongs: plain data that travels to every process of it."""

    run_dir: str  # absolute
    overrides: tuple[str, ...] = ()  # of the command line
    sweep: str | None = None  # name of the sweep
    started_at: float = 0.0  # seconds since the epoch
    composed: dict[str, Any] = field(default_factory=dict)  # content of the files in .hydra
    recordable: dict[str, Any] = field(default_factory=dict)  # the config, as records may show it

    @property
    def path(self) -> Path:
        return Path(self.run_dir)
