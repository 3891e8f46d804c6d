"""Provenance of a run: git commit, package versions, model, data and hardware."""

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.schema import TrainerSettings
from models.build import num_frozen_parameters, num_parameters
from trainer.distributed.device import device_name, processor_name
from trainer.distributed.parallel import class_name

PACKAGES = ("torch", "torchvision", "timm", "hydra-core", "omegaconf", "wandb", "numpy")


@cache
def source_state() -> dict[str, Any]:
    """Git commit and whether there are uncommitted changes; None outside a git repository."""
    root = Path(__file__).parent.parent.parent
    # git settings can name programs to run: ignore those of the environment, and core.fsmonitor
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str | None:
        # without optional locks, a killed git cannot leave an index.lock behind
        options = ("-C", str(root), "-c", "core.fsmonitor=false", "--no-optional-locks")
        command = ["git", *options, *arguments]
        try:
            done = subprocess.run(command, env=plain, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain")
    return {
        "git_commit": git("rev-parse", "HEAD"),
        "git_dirty": None if status is None else status != "",
    }


@cache
def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def run_facts(model: nn.Module, data: Any, settings: TrainerSettings) -> dict[str, Any]:
    """Summary entries on model, data and machine, known before training.

    Args:
        data: the run's :class:`data.loader.Loader`.
    """
    limit, sizes = settings.limit_eval_steps, data.sizes()
    evaluated = {name: len(data.evaluated(name, limit)) for name in sizes if name != "train"}
    return {
        "model": class_name(model),
        "num_parameters": num_parameters(model),
        "num_frozen_parameters": num_frozen_parameters(model),
        "data": data.spec.name,
        "synthetic_data": data.spec.synthetic,
        "num_samples": sizes,
        "num_evaluated": evaluated,
        "batch_size": data.batch_size,
        "device": device_name(data.device),
        "hardware": processor_name(),
        "world_size": data.world_size,
        "num_threads": torch.get_num_threads(),
    }
