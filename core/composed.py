"""The composed config, resolved and checked, as plain data; and the job it belongs to."""

import secrets
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from core.environment import recordable
from core.errors import ConfigError
from core.job import Job
from core.same_run import flat
from core.schema import TrainerSettings, check_settings

CONF = Path(__file__).parent.parent / "conf"

# two runs started in the same second must not share a directory
OmegaConf.register_new_resolver(
    "random_suffix", lambda: secrets.token_hex(3), use_cache=True, replace=True
)

# left in place until the data are loaded: models.build.fill_from_data fills in the value
OmegaConf.register_new_resolver("from_data", "${{from_data:{}}}".format, replace=True)

# the files in conf/hydra/launcher/ are named like the plugins' configs, whose schemas check them
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against")

NOT_WITH_PHASES = (  # every phase has its own
    "optim",
    "optimizer",
    "scheduler",
    "trainer.clip_grad_norm",
    "trainer.clip_grad_value",
)
OVERRULED = {  # setting -> the one that takes precedence unless it is null
    "trainer.max_epochs": "trainer.max_steps",
    "trainer.eval_every_epochs": "trainer.eval_every_steps",
}


def resolved(cfg: DictConfig, job: Job) -> tuple[dict[str, Any], Job]:
    """Resolve and check the config; returns it as plain data, and the job with ``recordable`` set.

    Raises:
        ConfigError: if a mandatory value is missing, an interpolation cannot be resolved, or a
            setting is unknown, of the wrong type or out of range.
    """
    check_recipes(HydraConfig.get())
    try:
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key
        raise ConfigError(f"{key} must be given: add {key}=... to the command line") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(config, dict)
    typed = typed_overrides(HydraConfig.get())
    check_phases(list(config["phases"]), typed)
    plain = {str(key): value for key, value in config.items()}
    for key, value in flat(plain).items():
        if "${from_data:" in str(value) and not key.startswith("model."):
            raise ConfigError(
                f"{key}={value}: ${{from_data:...}} works only in the model's settings"
            )
    check_overruled(check_settings(plain), typed)
    return plain, replace(job, recordable=recordable(cfg, plain))


def compose_config(overrides: Sequence[str] = (), with_hydra: bool = False) -> DictConfig:
    """Compose the config of some overrides outside of Hydra's entry point."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*overrides], return_hydra_config=with_hydra)


def job_of_this_process(cfg: DictConfig) -> Job:
    """The job that Hydra started in this process."""
    hydra = HydraConfig.get()
    typed = typed_overrides(hydra)
    with_node = OmegaConf.create({"hydra": hydra})
    return Job(
        run_dir=hydra.runtime.output_dir,
        overrides=tuple(typed),
        sweep=Path(hydra.sweep.dir).name if is_multirun(hydra) else None,
        started_at=time.time(),
        is_trial=is_of_study(hydra),
        composed={
            "config.yaml": OmegaConf.to_container(cfg),
            "hydra.yaml": OmegaConf.to_container(with_node, enum_to_str=True),
            "overrides.yaml": typed,
        },
    )


def is_multirun(hydra: HydraConf) -> bool:
    return hydra.mode is not None and hydra.mode.name == "MULTIRUN"


def is_of_study(hydra: HydraConf) -> bool:
    """Whether the study sweeper started the job."""
    return is_multirun(hydra) and str(hydra.sweeper._target_).endswith(".StudySweeper")


def typed_overrides(hydra: HydraConf) -> list[str]:
    """The overrides as typed; reading them one by one would resolve ``${oc.env:...}``."""
    overrides = OmegaConf.to_container(OmegaConf.create(hydra.overrides.task), resolve=False)
    assert isinstance(overrides, list)
    return [str(override) for override in overrides]


def check_recipes(hydra: HydraConf) -> None:
    """Refuse a recipe's or experiment's values if another optimizer or schedule was chosen.

    ``experiment=cifar10_customcnn optimizer=adam`` would give Adam the learning rate of SGD.
    """
    choices = hydra.runtime.choices
    given = keys_of(typed_overrides(hydra))
    for group in ("optim", "experiment"):
        file = CONF / group / f"{choices.get(group)}.yaml"
        recipe: Any = OmegaConf.load(file) if file.is_file() else {}
        for part in ("optimizer", "scheduler"):
            leftover = [key for key in recipe.get(part, {}) if f"{part}.{key}" not in given]
            if not leftover or not given & {part, "optim"}:
                continue
            composed = compose("config", [f"{group}={choices[group]}"], return_hydra_config=True)
            recipe_choice = composed.hydra.runtime.choices[part]
            if recipe_choice != choices[part]:
                keys = ", ".join(f"{part}.{key}" for key in leftover)
                raise ConfigError(
                    f"{group}={choices[group]} sets {keys} for {part}={recipe_choice}, but "
                    f"{part}={choices[part]} was chosen: give these values on the command line, "
                    f"or take them out (~{part}.{leftover[-1]})"
                )


def check_phases(phases: list[str], overrides: Sequence[str]) -> None:
    """Refuse top-level optimizer and scheduler settings in a run with phases.

    ``model=dcgan optimizer.lr=1`` would have no effect.
    """
    for override in overrides if phases else ():
        key = override.lstrip("+~").partition("=")[0]
        if key in NOT_WITH_PHASES or key.startswith(("optimizer.", "scheduler.")):
            name = phases[-1]
            raise ConfigError(
                f"{override} has no effect: each of the phases {', '.join(phases)} has its own: "
                f"optimizer@phases.{name}.optimizer=adamw, phases.{name}.optimizer.lr=1e-4, "
                f"scheduler@phases.{name}.scheduler=cosine, phases.{name}.clip_grad_norm=1, ..."
            )


def check_overruled(trainer: TrainerSettings, overrides: Sequence[str]) -> None:
    """Refuse a typed setting over which one of the recipe's takes precedence.

    ``experiment=shakespeare_char trainer.max_epochs=1`` would have no effect.
    """
    given = keys_of(overrides)
    for key, other in OVERRULED.items():
        value = getattr(trainer, other.removeprefix("trainer."))
        if key in given and other not in given and value is not None:
            raise ConfigError(f"{key} has no effect with {other}={value}: add {other}=null")


def keys_of(overrides: Sequence[str]) -> set[str]:
    """The keys that the overrides set."""
    return {override.lstrip("+~").partition("=")[0] for override in overrides}
