"""Train a model: compose a config, launch the processes it asks for, run.

    python train.py model=lightcnn optim=sgd_cosine
    python train.py -m optim=sgd_cosine,adamw_warmup_cosine seed=0,1,2

Read it top down: Hydra calls ``main`` for every job, ``train`` does the same from Python, and every
process of a job executes ``run``.
"""

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from core.command_line import command_line, compose_job, report_failure
from core.composed import job_of_this_process, resolved
from core.job import Job
from core.monitor import with_monitor
from core.ranks import announce
from core.same_run import finished_value
from core.schema import TrainerSettings
from study.sweep import Sweep
from trainer.distributed.launch import launch
from trainer.loggers.wandb_mode import check_key


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    """Run one job. Returns the best monitored value, or the worst possible one if it failed."""
    job = job_of_this_process(cfg)
    try:
        return run_job(cfg, job)
    except Exception as error:
        return report_failure(error, job, cfg)


def train(*overrides: str) -> Path:
    """Train from Python: ``train("model=vit", "optimizer.lr=1e-3")``; returns the run directory.

    Raises:
        ConfigError, Diverged, Interrupted: if the command line would print a one-line error.
    """
    cfg, job = compose_job(overrides)
    run_job(cfg, job)
    return job.path


def run_job(cfg: DictConfig, job: Job) -> float:
    """Check the config and launch its processes, unless the run has already finished."""
    if not job.is_trial:
        announce(f"run directory  {job.run_dir}")
    config, job = resolved(cfg, job)
    check_key(config["wandb"]["mode"])
    value = finished_value(config, job)
    return launch(run, config, job) if value is None else value


def run(config: dict[str, Any], job: Job) -> float:
    """Build, train and test in one process; returns the best value of the monitored metric."""
    # imported late: torch takes seconds to import, and composing, launching and --help skip it
    from trainer.build import build_trainer
    from trainer.checkpoint.start import starting_point
    from trainer.distributed.process_group import process_group
    from trainer.loggers.run_log import open_run_log
    from trainer.signals import listening

    config, job, monitor = with_monitor(config, job)
    with (
        process_group(TrainerSettings(**config["trainer"])) as ranks,
        listening() as interruption,
        starting_point(config, job, ranks) as start,
        open_run_log(config, job, ranks, start.num_events, start.wandb, start.notes) as run_log,
    ):
        trainer = build_trainer(config, monitor, start, run_log, ranks, interruption)
        trainer.fit()
    return trainer.best_value


if __name__ == "__main__":
    sys.exit(command_line(main, Sweep.finish))
