"""The study sweeper: what Hydra calls when a study is chosen (``python train.py -m +study=...``).

Hydra imports every plugin at every start, so whatever is heavy is imported when a study runs.
"""

from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class StudySweeper(Sweeper):
    """Tunes every candidate with an equal budget, then repeats the best over fresh seeds.

    Args:
        settings: see :class:`study.protocol.Protocol`.
    """

    def __init__(self, **settings: Any) -> None:
        plain = OmegaConf.to_container(OmegaConf.create(settings), resolve=True)
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
        from study import record
        from study.engine import Study
        from study.jobs import Jobs
        from study.preflight import preflight, print_forecast
        from study.protocol import Protocol
        from trainer.progress import Monitor

        assert self.config is not None
        assert self.launcher is not None
        protocol = Protocol.of(self.settings)
        check_arguments(arguments, protocol)
        directory = Path(self.config.hydra.sweep.dir).absolute()
        directory.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, directory / "multirun.yaml")
        group = self.config.wandb.group or f"{protocol.name}_{directory.name}"
        jobs = Jobs(self.launcher, directory, (*arguments, f"wandb.group='{group}'"))

        costs = record.begin(self.settings, tuple(arguments), directory)
        if not costs:
            load = partial(self.config_loader.load_sweep_config, self.config)
            costs = preflight(protocol, jobs, load)
            record.keep_costs(costs, directory)
        print_forecast(protocol, costs)
        study = Study(
            protocol,
            Monitor(self.config.monitor, self.config.monitor_mode),
            jobs,
            {name: cost.steps for name, cost in costs.items()},
            tuple(self.config.wandb.tags),
        )
        study.tune()
        record.keep_results(study)
        study.repeat()
        record.keep_results(study)
        record.print_results(study)


def check_arguments(arguments: list[str], protocol: Any) -> None:
    """Refuse what the study decides itself.

    Raises:
        ConfigError: a sweep on the command line, or a value for a setting that is tuned.
    """
    from trainer.errors import ConfigError

    parser = OverridesParser.create()
    for override in parser.parse_overrides(arguments):
        key = override.key_or_group
        if override.is_sweep_override():
            raise ConfigError(
                f"{key} has several values, but a study chooses the values: put them into a "
                "candidate's search space, or give one"
            )
        for candidate in protocol.candidates:
            given = {o.key_or_group for o in parser.parse_overrides(list(candidate.overrides))}
            if key in {*given, *(dimension.key for dimension in candidate.space.dimensions)}:
                raise ConfigError(
                    f"{key} is chosen by the study, for candidate {candidate.name}: it cannot be "
                    "given on the command line"
                )
        if key in ("seed", "resume", "trainer.test", "wandb.job_type"):
            raise ConfigError(f"{key} is set by the study: see hydra.sweeper in conf/study/")
