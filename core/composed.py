"""What Hydra composed, as plain data: the resolved config and the job's place."""

import os
import secrets
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from core.errors import ConfigError
from core.job import Job
from trainer.hydra_targets import guard

guard()  # before Hydra builds anything

# two runs started in the same second must not share a directory
OmegaConf.register_new_resolver(
    "random_suffix", lambda: secrets.token_hex(3), use_cache=True, replace=True
)

# conf/hydra/launcher/ has files of the names that the plugins use: their schemas may check them
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against")

CONF = Path(__file__).parent.parent / "conf"
NOT_WITH_PHASES = (
    "optim",
    "optimizer",
    "scheduler",
    "trainer.clip_grad_norm",
    "trainer.clip_grad_value",
)


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The config with every interpolation resolved, as mappings, lists and primitives.

    Raises:
        ConfigError: a mandatory value is missing, or an interpolation names nothing.
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
    check_phases(list(config["phases"]), typed_overrides(HydraConfig.get()))
    return {str(key): value for key, value in config.items()}


def job_of_this_process(cfg: DictConfig) -> Job:
    """The run directory that Hydra chose, and what is known of the sweep."""
    hydra = HydraConfig.get()
    is_sweep = hydra.mode is not None and hydra.mode.name == "MULTIRUN"
    return Job(
        run_dir=hydra.runtime.output_dir,
        overrides=tuple(typed_overrides(hydra)),
        sweep=Path(hydra.sweep.dir).name if is_sweep else None,
        started_at=job_started_at(),
        composed={
            "config.yaml": OmegaConf.to_container(cfg),
            "hydra.yaml": OmegaConf.to_container(
                OmegaConf.create({"hydra": hydra}), enum_to_str=True
            ),
            "overrides.yaml": typed_overrides(hydra),
        },
    )


def typed_overrides(hydra: HydraConf) -> list[str]:
    """The overrides as they were typed: reading them one by one would resolve ``${oc.env:...}``."""
    overrides = OmegaConf.to_container(OmegaConf.create(hydra.overrides.task), resolve=False)
    assert isinstance(overrides, list)
    return [str(override) for override in overrides]


def check_recipes(hydra: HydraConf) -> None:
    """Refuse settings that a recipe or experiment made for another optimizer or schedule.

    ``+experiment=cifar10_customcnn optimizer=adam`` would give Adam the learning rate of SGD.
    """
    decided = {override.lstrip("+~").split("=")[0] for override in hydra.overrides.task}
    for group in ("optim", "experiment"):
        name = hydra.runtime.choices.get(group)
        recipe = read_recipe(group, name)
        picks = picks_of(recipe)
        for part in ("optimizer", "scheduler"):
            chosen = hydra.runtime.choices.get(part)
            left = [f"{part}.{key}" for key in recipe.get(part, {})]
            left = [key for key in left if key not in decided]
            if left and picks.get(part, chosen) != chosen:
                raise ConfigError(
                    f"{group}={name} sets {', '.join(left)} for {part}={picks[part]}, but "
                    f"{part}={chosen} was chosen: give these values on the command line, or take "
                    f"them out (~{left[-1]})"
                )


def read_recipe(group: str, name: Any) -> dict[str, Any]:
    """The file of a recipe or experiment, as it stands; empty where none is chosen."""
    file = CONF / group / f"{name}.yaml"
    if not isinstance(name, str) or not file.is_file():
        return {}
    recipe = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(recipe, dict)
    return {str(key): value for key, value in recipe.items()}


def picks_of(recipe: dict[str, Any]) -> dict[str, str]:
    """The optimizer and scheduler that a recipe stands for, through the recipe that it picks."""
    picks: dict[str, str] = {}
    for entry in recipe.get("defaults", []):
        for key, value in entry.items() if isinstance(entry, dict) else ():
            group = key.split("/")[-1]
            if group == "optim":
                picks = picks_of(read_recipe("optim", value)) | picks
            else:
                picks[group] = value
    return picks


def check_phases(phases: list[str], overrides: Sequence[str]) -> None:
    """Refuse settings of the one optimizer that a run with phases does not have.

    ``model=dcgan optimizer.lr=1`` would train exactly as without it.
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


_jobs_started = 0


def job_started_at() -> float:
    """When this job started: for the first of a process, when the process did."""
    global _jobs_started
    _jobs_started += 1
    return process_started_at() if _jobs_started == 1 else time.time()


def process_started_at() -> float:
    """When this process was started, in seconds since the epoch (Linux; elsewhere: now)."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        boot = next(
            int(line.split()[1])
            for line in Path("/proc/stat").read_text().splitlines()
            if line.startswith("btime")
        )
        return boot + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError, StopIteration):
        return time.time()
