"""Train a model: compose a config, launch the processes it asks for, run.

    python train.py model=lightcnn optim=sgd_cosine
    python train.py -m optim=sgd_cosine,adamw_warmup_cosine seed=0,1,2
    python train.py --help

Read it downwards: ``main`` is what Hydra calls for every job, ``run`` is what every process does.
"""

import sys
from dataclasses import replace
from typing import Any

import hydra
from omegaconf import DictConfig

from core.command_line import announce, command_line, failures_reported
from core.composed import job_of_this_process, resolved
from core.environment import recordable
from core.job import Job
from core.monitor import monitor_of
from core.same_run import finished_value
from core.schema import TrainerSettings
from study.sweep import Sweep
from trainer.distributed.launch import launch


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    """One job: the composed config as plain data, run by as many processes as it asks for.

    Returns:
        The best value of the monitored metric, for a sweeper; the worst one if the job failed.
    """
    job = job_of_this_process(cfg)
    announce(f"run directory  {job.run_dir}")
    with failures_reported(job, cfg) as outcome:
        config = resolved(cfg)
        job = replace(job, recordable=recordable(cfg, config))
        value = finished_value(config, job)
        if value is None:
            value = launch(run, config, job)
        else:
            announce("this run has finished already: nothing to do")
        outcome.value = value
    return outcome.value


def run(config: dict[str, Any], job: Job) -> float:
    """One process of one job: build everything the config names, train, test.

    Args:
        config: the resolved config, checked, as plain data.
        job: the run directory and what else belongs to the job.

    Returns:
        The best value of the monitored metric.

    Raises:
        ConfigError: a setting or an input file is wrong; raised before any training.
    """
    # importing torch takes seconds, which composing, launching and --help do without
    from core.collectives import first_on_node
    from data.build import build_data
    from models.build import build_model
    from objectives.build import build_objective
    from optim.schedules import Horizon
    from trainer.distributed.device import choose_device, choose_precision, prepare_process
    from trainer.distributed.process_group import process_group
    from trainer.loggers.provenance import run_facts
    from trainer.loggers.run_log import open_run_log
    from trainer.phase import build_phases
    from trainer.resume import batches_offset, resume, starting_point
    from trainer.signals import listening
    from trainer.trainer import Trainer

    settings = TrainerSettings(**config["trainer"])
    monitor = monitor_of(config)
    config = {**config, "monitor_mode": monitor.mode}  # which is what records hold
    job = replace(job, recordable={**(job.recordable or config), "monitor_mode": monitor.mode})
    with (
        process_group(settings) as ranks,
        listening() as interruption,
        starting_point(config, job, ranks) as start,
        open_run_log(config, job, ranks, start.num_events, start.notes, start.wandb) as run_log,
    ):
        device = choose_device(settings, ranks.local_rank)
        precision = choose_precision(settings.precision, device)
        prepare_process(settings, config["seed"], ranks)

        with first_on_node(ranks):  # it downloads and prepares what the others then find
            data = build_data(
                config["data"], device, config["seed"], ranks, settings.accumulate_steps
            )
        model = build_model(
            config["model"], data.spec, device, settings.channels_last, settings.compile
        )
        objective = build_objective(config["objective"], model, data.spec)
        offset = batches_offset(start, data)
        horizon = Horizon.of(settings.max_epochs, settings.max_steps, data.steps_per_epoch, offset)
        phases = build_phases(config, objective, horizon, settings)

        trainer = Trainer(
            settings=settings,
            objective=objective,
            phases=phases,
            data=data,
            horizon=horizon,
            monitor=monitor,
            run_log=run_log,
            ranks=ranks,
            device=device,
            precision=precision,
            interruption=interruption,
        )
        resume(trainer, start)
        for note in data.notes:
            run_log.print(note)
        run_log.write_header(data.spec, run_facts(model, data, device) | trainer.facts())
        trainer.fit()
    return trainer.best_value


if __name__ == "__main__":
    sys.exit(command_line(main, Sweep.finish))
