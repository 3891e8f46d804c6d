"""The study as a Hydra sweeper (``python train.py -m study=...``).

Hydra imports its plugins at every start, so what is heavy is imported when a study runs.
"""

from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class StudySweeper(Sweeper):
    """Tunes every candidate with an equal budget, then repeats the best over fresh seeds.

    Args:
        mode: for ``hydra.mode`` to take over.
        settings: see :class:`study.protocol.Protocol`.
    """

    def __init__(self, mode: str, **settings: Any) -> None:
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
        from core.monitor import monitor_of
        from study.conduct import conduct

        config = self.config
        assert config is not None
        assert self.launcher is not None
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
