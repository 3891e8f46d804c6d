"""The Hydra sweeper that runs a study: ``python train.py -m study=...``."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from core.command_line import Compose
from core.errors import ConfigError
from core.monitor import monitor_of
from core.progress import Monitor
from study import outlook, record
from study.engine import Study
from study.jobs import Jobs, update_study
from study.preflight import Cost, preflight, print_forecast
from study.protocol import Protocol
from trainer.loggers.wandb_mode import check_key

DECIDED = ("seed", "resume", "trainer.test", "wandb.job_type", "wandb.candidate")


class StudySweeper(Sweeper):
    """Tunes every candidate with an equal budget and judges the best settings on fresh seeds.

    Args:
        mode: not used here; ``hydra.mode`` interpolates it.
        settings: those of :class:`study.protocol.Protocol`.
    """

    def __init__(self, mode: str, **settings: Any) -> None:
        # Hydra has resolved them; remaining interpolations, such as a candidate's, are for the runs
        plain = OmegaConf.to_container(OmegaConf.create(settings), resolve=False)
        assert isinstance(plain, dict)
        self.settings = {str(key): value for key, value in plain.items()}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config = config
        self.config_loader = hydra_context.config_loader
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        config = self.config
        assert config is not None
        assert self.launcher is not None
        check_key(config.wandb.mode)  # every trial would fail
        directory = Path(config.hydra.sweep.dir).absolute()
        directory.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, directory / "multirun.yaml")
        conduct(
            self.settings,
            tuple(arguments),
            directory=directory,
            launcher=self.launcher,
            compose=partial(self.config_loader.load_sweep_config, config),
            monitor=monitor_of(config),
            group=config.wandb.group or f"{self.settings['name']}_{directory.name}",
            tags=tuple(config.wandb.tags),
        )


def conduct(
    settings: dict[str, Any],
    arguments: tuple[str, ...],
    directory: Path,
    launcher: Launcher,
    compose: Compose,
    monitor: Monitor,
    group: str,
    tags: tuple[str, ...],
) -> Study:
    """Run a study (preflight, forecast, tuning, repeats), or resume the one in ``directory``.

    Args:
        settings: ``hydra.sweeper``, see :class:`study.protocol.Protocol`.
        arguments: overrides of the command line, for every run.
        compose: returns the config that Hydra composes from overrides.
        group: W&B group of all runs.
        tags: W&B tags of all runs, in addition to each run's candidate.

    Raises:
        ConfigError: if the settings are wrong or contradictory, or a candidate does not run.
    """
    protocol = Protocol.of(settings)
    check_arguments(arguments, protocol)
    jobs = Jobs(launcher, directory, (*arguments, f"wandb.group='{group}'"), monitor)
    before = record.begin(settings, arguments, directory)
    costs = {name: Cost(**cost) for name, cost in before["costs"].items()}
    if not costs:
        costs = preflight(protocol, jobs, compose)
        update_study(directory, {"costs": {name: asdict(cost) for name, cost in costs.items()}})
    print_forecast(protocol, costs)
    outlook.begin(protocol, directory)
    study = Study(
        protocol=protocol,
        jobs=jobs,
        horizons={name: cost.steps for name, cost in costs.items()},
        measured=record.measured(before, monitor),
        tags=tags,
    )
    # so that a report finds runs that have not ended yet
    jobs.on_launch = partial(record.keep_results, study)
    study.conduct()
    record.keep_results(study, finished=True)
    record.print_results(study)
    return study


def check_arguments(arguments: tuple[str, ...], protocol: Protocol) -> None:
    """Refuse overrides of settings that the study itself decides.

    Raises:
        ConfigError: if an override is a sweep, or sets what the study sets or tunes.
    """
    parser = OverridesParser.create()
    chosen = {
        key: candidate.name
        for candidate in protocol.candidates.values()
        for key in (
            *(o.key_or_group for o in parser.parse_overrides(list(candidate.overrides))),
            *(dimension.key for dimension in candidate.search_space.dimensions),
        )
    }
    for override in parser.parse_overrides(list(arguments)):
        key = override.key_or_group
        if override.is_sweep_override():
            raise ConfigError(
                f"{key} has several values, but a study chooses the values: put them in a "
                "candidate's search space, or give one value"
            )
        if key in chosen:
            raise ConfigError(
                f"{key} is chosen by the study, for candidate {chosen[key]}: it cannot be given "
                "on the command line"
            )
        if key in DECIDED:
            raise ConfigError(f"{key} is set by the study: see hydra.sweeper in conf/study/")
