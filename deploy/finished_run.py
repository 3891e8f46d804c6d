"""Loads a finished run from its directory: config, data spec and weights, on the CPU."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.environment import from_environment
from core.errors import ConfigError
from core.monitor import objective_class
from core.ranks import Ranks
from core.run_directory import read_config, read_summary
from core.schema import Seed, TrainerSettings, checked
from data.build import build_data
from data.loader import Loader
from data.spec_file import read_spec
from models.build import build_model
from objectives.build import build_objective
from trainer.checkpoint.files import load_best_weights
from trainer.distributed.device import DTYPES, choose_precision, prepare_process
from trainer.evaluation import evaluate

CPU = torch.device("cpu")
USED_ON_OPENING = {"seed", "model", "objective", "trainer"}  # unlike data, always needed


@dataclass(frozen=True)
class Needed:
    """The sections of a config that are needed to use its run."""

    seed: Seed
    model: dict
    data: dict
    objective: dict
    trainer: TrainerSettings


@dataclass(frozen=True)
class FinishedRun:
    """The contents of a run directory, loaded.

    Attributes:
        model: with the best weights (averaged if the run kept an average), in evaluation mode.
        spec: description of the data.
        summary: the run's ``summary.json``; empty if there is none.
        outputs: kind of the model's outputs, see :class:`objectives.base.Objective`.
    """

    run_dir: Path
    config: dict[str, Any]
    settings: TrainerSettings
    spec: Any
    model: nn.Module
    summary: dict[str, Any]
    outputs: str | None

    def load_data(self) -> Loader:
        """Load the data set the run was trained on.

        Raises:
            ConfigError: if it is no longer there.
        """
        settings = from_environment(self.config["data"], "data")
        return build_data(
            settings, CPU, self.config["seed"], Ranks(), self.settings.accumulate_steps
        )

    def test(self) -> dict[str, float]:
        """Evaluate the test split again, in the precision of the run."""
        prepare_process(self.settings, self.config["seed"], Ranks(), CPU)
        data = self.load_data()
        if "test" not in data.splits:
            raise ConfigError(f"data={data.spec.name} has no test split")
        objective = build_objective(self.config["objective"], self.model, data.spec)
        objective.setup(data)
        precision = self.summary.get("precision") or choose_precision(self.settings.precision, CPU)
        if precision not in tuple(DTYPES):
            raise ConfigError(f"{self.run_dir}/summary.json is damaged: precision={precision}")
        limit = self.settings.limit_eval_steps
        means, _ = evaluate(objective, self.model, data, "test", precision, limit)
        return {f"test/{name}": value for name, value in means.items()}


def newest_run() -> Path:
    """The directory of the run that started last, below ``outputs`` and ``multirun``."""
    files = [file for name in ("outputs", "multirun") for file in Path(name).glob("**/spec.json")]
    if not files:
        raise ConfigError("latest: there is no run directory below outputs/ or multirun/")
    return max(files, key=lambda file: file.stat().st_mtime).parent


def open_run(run_dir: Path) -> FinishedRun:
    """Read a run directory and build its model.

    Raises:
        ConfigError: if it is not a run directory, has no checkpoint, or a file is damaged.
    """
    if not run_dir.is_dir():
        raise ConfigError(f"there is no directory {run_dir}")
    spec = read_spec(run_dir / "spec.json")
    config = read_config(run_dir / "config.yaml")
    for part in USED_ON_OPENING & config.keys():
        config[part] = from_environment(config[part], part)
    try:
        settings = needed_settings(config)
    except ConfigError as error:
        raise ConfigError(f"{run_dir / 'config.yaml'} cannot be used: {error}") from error
    model = build_model(without_download(config["model"]), spec, CPU, settings.channels_last)
    load_best_weights(model, run_dir)
    objective = objective_class(config["objective"]["_target_"])
    return FinishedRun(
        run_dir=run_dir,
        config=config,
        settings=settings,
        spec=spec,
        model=model.eval(),
        summary=read_summary(run_dir / "summary.json"),
        outputs=getattr(objective, "outputs", None),
    )


def needed_settings(config: dict[str, Any]) -> TrainerSettings:
    """Check the sections in :class:`Needed`; returns the trainer settings.

    Raises:
        ConfigError: if a setting is missing or has a wrong type or value.
    """
    sections = {field.name: config[field.name] for field in fields(Needed) if field.name in config}
    settings = checked(Needed, sections)
    for name in ("model", "data", "objective"):
        if "_target_" not in sections[name]:
            raise ConfigError(f"{name}._target_ is missing")
    return replace(settings.trainer, accelerator="cpu")


def without_download(model: dict[str, Any]) -> dict[str, Any]:
    """The model's settings with ``pretrained=false``: the checkpoint replaces those weights."""
    return {**model, "pretrained": False} if model.get("pretrained") else model
