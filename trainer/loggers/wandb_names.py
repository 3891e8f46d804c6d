"""What a run is called in Weights & Biases: its name, its candidate, its tags."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.records import read_record

PROJECT = "optimizer-experiments"  # where neither the config nor WANDB_PROJECT names one
# overrides that say where and how a run is made, not what is compared
NOT_NAMED = ("wandb.", "hydra", "data.root", "resume")
NOT_COMPARED = ("seed", "study", "resume", "trainer", "debug")
NOT_COMPARED_PARTS = (*NOT_NAMED, "trainer.devices", "trainer.accelerator", "trainer.num_")
LONGEST_TAG = 64  # characters that W&B takes


def project(settings: dict[str, Any]) -> str:
    """Where the section ``wandb`` sends its runs."""
    return settings["project"] or os.environ.get("WANDB_PROJECT") or PROJECT


def run_name(config: dict[str, Any], run_dir: Path, overrides: Sequence[str]) -> str:
    """What the command line set; of a job of a sweep, what differs within the sweep."""
    if config["wandb"]["candidate"]:  # a study names its runs: adamw-tune-003
        return run_dir.name
    own = [text for text in varied(overrides, run_dir) if not text.startswith(NOT_NAMED)]
    return ", ".join(own) or run_dir.name


def varied(overrides: Sequence[str], run_dir: Path) -> list[str]:
    """Those that differ within the sweep that the run is a job of; without a sweep, all."""
    try:
        sweep = read_record(run_dir.parent / "multirun.yaml")
        shared = [str(override) for override in sweep["hydra"]["overrides"]["task"]]
    except (OSError, ValueError, KeyError, TypeError):
        shared = []
    return [override for override in overrides if override not in shared]


def candidate(config: dict[str, Any], run_dir: Path, overrides: Sequence[str]) -> str:
    """What is compared in the group: a column that W&B can group the runs of a sweep by."""
    if config["wandb"]["candidate"]:
        return str(config["wandb"]["candidate"])
    pairs = [override.lstrip("+").partition("=") for override in varied(overrides, run_dir)]
    chosen = [
        f"{key}={value}" if "." in key else value
        for key, _, value in pairs
        if key not in NOT_COMPARED and not key.startswith(NOT_COMPARED_PARTS)
    ]
    # a run with phases has no optimizer at the top
    return ", ".join(chosen) or kind(config["optimizer"] or config["model"])


def run_tags(config: dict[str, Any]) -> list[str]:
    """The user's tags, then model, data and optimizer."""
    parts = [config["model"], config["data"], config["optimizer"]]
    parts += [phase["optimizer"] for phase in config["phases"].values()]
    own = [str(tag) for tag in config["wandb"]["tags"]]
    tags = [*own, *(kind(part)[:LONGEST_TAG] for part in parts if part)]
    return list(dict.fromkeys(tags))


def kind(node: dict[str, Any]) -> str:
    """``SGD`` of ``torch.optim.SGD``; of a node for a whole library, the name within it."""
    return str(node.get("name") or node["_target_"].rpartition(".")[2])
