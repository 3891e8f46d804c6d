"""Write a study as sweeps of Weights & Biases, for ``wandb sweep`` and ``wandb agent``.

    python -m study.wandb_sweep mnist_optimizers sweeps/

writes one YAML for each candidate, since a W&B sweep knows no conditional spaces. W&B's server
then chooses the settings; the equal budget is the study's number of trials. Repeats over fresh
seeds are not part of a W&B sweep.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from study.protocol import Candidate, Protocol
from study.space import Dimension, text
from trainer.cli import explain, print_error
from trainer.composed import CONF
from trainer.errors import ConfigError

METHODS = {"grid": "grid", "tpe": "bayes"}  # W&B has no quasi-random sequences: random


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m study.wandb_sweep")
    parser.add_argument("study", help="a file of conf/study/, such as mnist_optimizers")
    parser.add_argument("folder", type=Path, help="where to write one YAML for each candidate")
    arguments = parser.parse_args()
    try:
        write(arguments.study, arguments.folder)
    except (HydraException, ConfigError) as error:
        print_error(explain(error))
        return 1
    return 0


def write(study: str, folder: Path) -> None:
    """Write ``<study>_<candidate>.yaml`` for every candidate of ``study`` into ``folder``."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [f"+study={study}"], return_hydra_config=True)
    settings = OmegaConf.to_container(cfg.hydra.sweeper)
    assert isinstance(settings, dict)
    protocol = Protocol.of(
        {str(key): value for key, value in settings.items() if key not in ("_target_", "mode")}
    )
    folder.mkdir(parents=True, exist_ok=True)
    for candidate in protocol.candidates:
        file = folder / f"{protocol.name}_{candidate.name}.yaml"
        content = sweep_of(study, protocol, candidate, cfg)
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        print(f"wandb sweep {file}")


def sweep_of(
    study: str, protocol: Protocol, candidate: Candidate, cfg: DictConfig
) -> dict[str, Any]:
    """W&B's description of one candidate's sweep.

    Args:
        cfg: the study's composed config.
    """
    method = METHODS.get(protocol.sampler, "random")
    fixed = [
        f"+study={study}",
        *candidate.overrides,
        f"seed={protocol.tune_seeds[0]}",
        "trainer.test=false",
        "hydra.mode=RUN",
        "wandb.job_type=tune",
        f"wandb.candidate={candidate.name}",
        f"wandb.tags=[{candidate.name}]",
    ]
    return {
        "name": f"{protocol.name} {candidate.name}",
        "project": cfg.wandb.project,
        "program": "train.py",
        "method": method,
        "metric": {"name": cfg.monitor, "goal": f"{cfg.monitor_mode}imize"},
        "run_cap": protocol.trials,
        "parameters": {
            d.key: parameter(d, candidate.name, method) for d in candidate.space.dimensions
        },
        # without hyphens, the agent's arguments are Hydra's overrides
        "command": ["${env}", "${interpreter}", "${program}", *fixed, "${args_no_hyphens}"],
    }


def parameter(dimension: Dimension, candidate: str, method: str) -> dict[str, Any]:
    """W&B's description of one setting.

    An interval of ``1 - value`` becomes values evenly spaced on its scale: W&B has no such
    distribution.
    """
    if dimension.when:
        print(f"{candidate}: {dimension.key} is conditional; W&B varies it always", file=sys.stderr)
    if dimension.choices:
        plain = all(isinstance(choice, str | int | float | bool) for choice in dimension.choices)
        return {"values": [c if plain else text(c) for c in dimension.choices]}
    if method == "grid":
        points = dimension.grid(candidate)
        return {"values": [dimension.value(point) for point in points]}
    if dimension.one_minus:
        return {"values": [dimension.value(dimension.at(i / 10)) for i in range(11)]}
    ends = {"min": dimension.low, "max": dimension.high}
    if dimension.is_whole:
        return {"distribution": "int_uniform", **ends}
    return {"distribution": "log_uniform_values" if dimension.log else "uniform", **ends}


if __name__ == "__main__":
    sys.exit(main())
