"""Hydra's joblib launcher, with the machine's GPUs divided among the jobs."""

import os
import tempfile
from dataclasses import dataclass
from typing import Any

from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_joblib_launcher import joblib_launcher
from hydra_plugins.hydra_joblib_launcher.config import JobLibLauncherConf
from omegaconf import MISSING, DictConfig

from study.gpu_slots import SLOTS, gpu_slots, offer


@dataclass
class Settings(JobLibLauncherConf):
    """Schema of ``conf/hydra/launcher/joblib.yaml``; Hydra's does not have ``jobs_per_gpu``."""

    jobs_per_gpu: int = MISSING


class JoblibLauncher(joblib_launcher.JoblibLauncher):
    """Run jobs concurrently: one per CPU core, or ``jobs_per_gpu`` on each GPU.

    Args:
        jobs_per_gpu: how many jobs share a GPU.
        settings: arguments of ``joblib.Parallel``.
    """

    def __init__(self, jobs_per_gpu: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.jobs_per_gpu = jobs_per_gpu

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        os.environ.pop(SLOTS, None)
        if slots := gpu_slots(config.trainer, self.jobs_per_gpu):
            self.folder = tempfile.TemporaryDirectory(prefix="gpus_")
            offer(slots, self.folder.name)
            if self.joblib["n_jobs"] == -1:
                self.joblib["n_jobs"] = len(slots)
