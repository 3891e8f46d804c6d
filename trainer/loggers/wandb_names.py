"""Project, name, candidate and tags of a run in Weights & Biases."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.records import read_record

PROJECT = "optimizer-experiments"  # default, without wandb.project and WANDB_PROJECT
# overrides that set where and how a run is made, not what is compared
NOT_NAMED = ("wandb.", "hydra", "data.root", "resume")
NOT_COMPARED = ("seed", "study", "resume", "trainer", "debug")
NOT_COMPARED_PARTS = (*NOT_NAMED, "trainer.devices", "trainer.accelerator", "trainer.num_")
LONGEST_TAG = 64  # characters, W&B's limit


def project(settings: dict[str, Any]) -> str:
    """W&B project from the config section ``wandb``, the environment or the default."""
    return settings["project"] or os.environ.get("WANDB_PROJECT") or PROJECT


def run_name(config: dict[str, Any], run_dir: Path, overrides: Sequence[str]) -> str:
    """The overrides of the command line; for a job of a sweep, those that vary in the sweep."""
    if config["wandb"]["candidate"]:  # a study names its runs: adamw-tune-003
        return run_dir.name
    own = [text for text in varied(overrides, run_dir) if not text.startswith(NOT_NAMED)]
    return ", ".join(own) or run_dir.name


def varied(overrides: Sequence[str], run_dir: Path) -> list[str]:
    """The overrides that vary within the run's sweep; all of them if there is no sweep."""
    try:
        sweep = read_record(run_dir.parent / "multirun.yaml")
        shared = [str(override) for override in sweep["hydra"]["overrides"]["task"]]
    except (OSError, ValueError, KeyError, TypeError):
        shared = []
    return [override for override in overrides if override not in shared]


def candidate(config: dict[str, Any], run_dir: Path, overrides: Sequence[str]) -> str:
    """The setting under comparison; a W&B column to group the runs of a sweep by."""
    if config["wandb"]["candidate"]:
        return str(config["wandb"]["candidate"])
    pairs = [override.lstrip("+").partition("=") for override in varied(overrides, run_dir)]
    chosen = [
        f"{key}={value}" if "." in key else value
        for key, _, value in pairs
        if key not in NOT_COMPARED and not key.startswith(NOT_COMPARED_PARTS)
    ]
    # a run with phases has no top-level optimizer
    return ", ".join(chosen) or kind(config["optimizer"] or config["model"])


def run_tags(config: dict[str, Any]) -> list[str]:
    """The user's tags, then model, data and optimizer."""
    parts = [config["model"], config["data"], config["optimizer"]]
    parts += [phase["optimizer"] for phase in config["phases"].values()]
    own = [str(tag) for tag in config["wandb"]["tags"]]
    tags = [*own, *(kind(part)[:LONGEST_TAG] for part in parts if part)]
    return list(dict.fromkeys(tags))


def kind(node: dict[str, Any]) -> str:
    """``SGD`` for ``torch.optim.SGD``; the value of ``name`` for a node that has one."""
    return str(node.get("name") or node["_target_"].rpartition(".")[2])
