"""The job that a run is: where it belongs, how it was asked for, how it is gone on with."""

import multiprocessing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.overrides import continuation, text
from core.ranks import ranks_of_this_process, started_by_torchrun


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
        """The command that goes on with this run, to be pasted into a shell.

        What torchrun was told on several nodes, its processes do not know: ``OPTIONS``.
        """
        program = "python train.py"
        if started_by_torchrun() and multiprocessing.parent_process() is None:
            ranks = ranks_of_this_process()
            is_one_node = ranks.world_size == ranks.local_world_size
            options = f"--standalone --nproc-per-node={ranks.world_size}"
            program = f"torchrun {options if is_one_node else 'OPTIONS'} train.py"
        directory = f"hydra.run.dir={text(self.run_dir)}"
        return continuation(program, self.overrides, directory, "resume=auto")
