"""The job of a run: its directory, its overrides, and the command that continues it."""

import multiprocessing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.overrides import continuation, text
from core.ranks import ranks_of_this_process, started_by_torchrun


@dataclass(frozen=True)
class Job:
    """A run's directory, overrides and sweep: plain data that is sent to all of its processes."""

    run_dir: str  # absolute
    overrides: tuple[str, ...] = ()  # from the command line
    sweep: str | None = None  # name of the sweep
    started_at: float = 0.0  # seconds since the epoch
    composed: dict[str, Any] = field(default_factory=dict)  # content of the files in .hydra
    recordable: dict[str, Any] = field(default_factory=dict)  # config, ``${oc.env:...}`` kept
    is_trial: bool = False  # of a study: the console shows one line, ``train.log`` the rest

    @property
    def path(self) -> Path:
        return Path(self.run_dir)

    @property
    def continuation(self) -> str:
        """The shell command that continues this run.

        ``OPTIONS`` stands for torchrun's on several nodes, which its processes do not know.
        """
        program = "python train.py"
        if started_by_torchrun() and multiprocessing.parent_process() is None:
            ranks = ranks_of_this_process()
            is_one_node = ranks.world_size == ranks.local_world_size
            options = f"--standalone --nproc-per-node={ranks.world_size}"
            program = f"torchrun {options if is_one_node else 'OPTIONS'} train.py"
        directory = f"hydra.run.dir={text(self.run_dir)}"
        return continuation(program, self.overrides, directory, "resume=auto")
