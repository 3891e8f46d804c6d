"""Export a study as Weights & Biases sweeps, for ``wandb sweep`` and ``wandb agent``.

    python -m study.wandb_sweep mnist_optimizers sweeps/

writes one YAML file per candidate. A conditional space, which W&B does not support, is split into
several sweeps that share the candidate's trials. W&B's server then chooses the settings. Halving,
replicates and repeats on fresh seeds are not part of a W&B sweep.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig

from core.command_line import explain, print_error
from core.composed import compose_config
from core.errors import ConfigError
from core.monitor import monitor_of
from core.overrides import text
from study.protocol import Candidate, Protocol
from study.space import Dimension
from trainer.loggers.wandb_names import project

METHODS = {"grid": "grid", "tpe": "bayes"}  # others, such as sobol: random


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
    cfg = compose_config([f"study={study}"], with_hydra=True)
    if "candidates" not in cfg.hydra.sweeper:
        raise ConfigError(f"{study} compares no candidates: it is a single run, not a sweep")
    protocol = Protocol.of(instantiate(cfg.hydra.sweeper).settings)
    for loss in losses(protocol):
        print(f"not supported by W&B sweeps: {loss}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    for candidate in protocol.candidates.values():
        sweeps = sweeps_of(study, protocol, candidate, cfg)
        for number, content in enumerate(sweeps, start=1):
            branch = f"_{number}" if len(sweeps) > 1 else ""
            file = folder / f"{protocol.name}_{candidate.name}{branch}.yaml"
            file.write_text(yaml.safe_dump(content, sort_keys=False))
            print(f"wandb sweep {file}")


def losses(protocol: Protocol) -> list[str]:
    """The parts of a study's protocol that a W&B sweep does not support."""
    lost = []
    if protocol.sampler not in (*METHODS, "random"):
        lost.append(f"sampler={protocol.sampler} (points are random)")
    if protocol.halving:
        lost.append("halving (every trial runs to the end)")
    if protocol.replicates > 1:
        lost.append("replicates (settings are tuned once)")
    return lost


def sweeps_of(
    study: str, protocol: Protocol, candidate: Candidate, cfg: DictConfig
) -> list[dict[str, Any]]:
    """W&B sweep configurations of a candidate, one per branch of its space.

    Args:
        cfg: the study's composed config.
    """
    method = METHODS.get(protocol.sampler, "random")
    branches = candidate.search_space.branches()
    sweeps = []
    for number, (settled, dimensions) in enumerate(branches):
        choices = [f"{key}={text(value)}" for key, value in settled.items()]
        # the shares add up to the candidate's trials; a grid ends on its own
        share = protocol.trials if method == "grid" else (protocol.trials + number) // len(branches)
        fixed = [
            f"study={study}",
            "hydra.mode=RUN",
            *candidate.run_overrides(settled, "tune"),
            f"seed={protocol.tuning_seed(0)}",
            "trainer.test=false",
        ]
        sweeps.append(
            {
                "name": " ".join([protocol.name, candidate.name, *choices]),
                "project": project(cfg.wandb),
                "program": "train.py",
                "method": method,
                "metric": {"name": cfg.monitor, "goal": f"{monitor_of(cfg).mode}imize"},
                "run_cap": max(1, share),
                "parameters": {d.key: parameter(d, method) for d in dimensions},
                # without hyphens the agent's arguments are Hydra overrides
                "command": ["${env}", "${interpreter}", "${program}", *fixed, "${args_no_hyphens}"],
            }
        )
    return sweeps


def parameter(dimension: Dimension, method: str) -> dict[str, Any]:
    """W&B's parameter configuration of a setting.

    W&B has no distribution for an interval of ``1 - value`` or of integers on a logarithmic scale,
    so these become a list of values, evenly spaced on that scale.
    """
    if dimension.choices:
        plain = all(isinstance(choice, str | int | float | bool) for choice in dimension.choices)
        return {"values": [c if plain else text(c) for c in dimension.choices]}
    if method == "grid":
        shares = dimension.grid()
    elif dimension.one_minus or (dimension.is_whole and dimension.log):
        shares = [index / 10 for index in range(11)]
    else:
        ends = {"min": dimension.low, "max": dimension.high}
        if dimension.is_whole:
            return {"distribution": "int_uniform", **ends}
        return {"distribution": "log_uniform_values" if dimension.log else "uniform", **ends}
    return {"values": list(dict.fromkeys(dimension.at(share) for share in shares))}


if __name__ == "__main__":
    sys.exit(main())
