"""The job that a run is: where it belongs, how it was asked for, how it is gone on with."""

import multiprocessing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.overrides import continuation, text
from core.ranks import started_by_torchrun


@dataclass(frozen=True)
class Job:
    """Where a run belongs: plain data that travels to every process of it."""

    run_dir: str  # absolute
    overrides: tuple[str, ...] = ()  # of the command line
    sweep: str | None = None  # name of the sweep
    started_at: float = 0.0  # seconds since the epoch
    composed: dict[str, Any] = field(default_factory=dict)  # content of the files in .hydra
    recordable: dict[str, Any] = field(default_factory=dict)  # the config, as records may show it
    is_trial: bool = False  # of a study, which has a line for each; the rest is in ``train.log``

    @property
    def path(self) -> Path:
        return Path(self.run_dir)

    @property
    def continuation(self) -> str:
        """The command that goes on with this run, to be pasted into a shell."""
        by_hand = started_by_torchrun() and multiprocessing.parent_process() is None
        program = "torchrun <its options> train.py" if by_hand else "python train.py"
        directory = f"hydra.run.dir={text(self.run_dir)}"
        return continuation(program, self.overrides, directory, "resume=auto")
