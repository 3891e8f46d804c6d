"""The data set a config describes, ready to iterate."""

from typing import Any

import torch

from data.loader import Loader
from data.splits import Splits
from trainer.distributed import Ranks
from trainer.errors import ConfigError
from trainer.instantiate import instantiate

LOADER_SETTINGS = ("batch_size", "eval_batch_size", "num_workers")


def build_splits(settings: dict[str, Any]) -> Splits:
    """The splits alone, without the batching.

    Raises:
        ConfigError: a folder or file is missing, empty or damaged, or a setting is wrong.
    """
    source = {key: value for key, value in settings.items() if key not in LOADER_SETTINGS}
    return instantiate(source, "data")


def build_data(
    settings: dict[str, Any],
    device: torch.device,
    seed: int,
    ranks: Ranks,
    accumulate_steps: int,
) -> Loader:
    """The data set of the config's ``data`` node, batched for one process."""
    for key in LOADER_SETTINGS:
        value = settings[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < (key != "num_workers"):
            raise ConfigError(f"data.{key}={value} should be a whole number, 1 or more")
    loading = {key: settings[key] for key in LOADER_SETTINGS}
    return Loader(
        build_splits(settings),
        device,
        seed,
        ranks.rank,
        ranks.world_size,
        accumulate_steps,
        **loading,
    )
