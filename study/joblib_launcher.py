"""Hydra's joblib launcher, with the machine's GPUs shared out among the jobs."""

import os
import tempfile
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_joblib_launcher import joblib_launcher
from hydra_plugins.hydra_joblib_launcher.config import JobLibLauncherConf
from omegaconf import MISSING, DictConfig

from study.gpu_slots import SLOTS, gpu_slots, offer


@dataclass
class Settings(JobLibLauncherConf):
    """Hydra checks ``conf/hydra/launcher/joblib.yaml`` against these."""

    jobs_per_gpu: int = MISSING


def register_settings() -> None:
    """In place of those of Hydra's launcher, which know no GPUs."""
    ConfigStore.instance().store(group="hydra/launcher", name="joblib", node=Settings)


class JoblibLauncher(joblib_launcher.JoblibLauncher):
    """Runs jobs at once: one per CPU core, or as many as the GPUs have places.

    Args:
        jobs_per_gpu: how many jobs share a GPU.
        settings: of ``joblib.Parallel``.
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
