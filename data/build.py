"""Builds the data set that a config describes, ready to iterate."""

import inspect
from dataclasses import is_dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch.utils.data import Subset

from core.errors import ConfigError
from core.instantiate import instantiate, resolve
from core.ranks import Ranks
from core.schema import Count, check_value
from data.draws import SUBSET_STREAM, seeded
from data.images import Views
from data.loader import Loader
from data.splits import IterableSplit, Splits, StreamedSplit, TensorSplit
from data.transforms import transformed

LOADING = {
    "batch_size": Count,
    "eval_batch_size": Count,
    "num_workers": Annotated[int, Field(ge=0, le=256)],  # more per split and process is a typo
}
SPEC_FIELDS = ("kind", "name", "synthetic", "example")


def build_splits(settings: dict[str, Any]) -> Splits:
    """The splits of the data set, not batched.

    Raises:
        ConfigError: if a folder or file is missing, empty or damaged, or a setting is wrong.
    """
    loader_settings = (*LOADING, "limit_train_samples", "transforms", "collate_fn", "views")
    source = {key: value for key, value in settings.items() if key not in loader_settings}
    splits = instantiate(source, "data")
    if not isinstance(splits, Splits):
        raise ConfigError(f"data._target_={settings['_target_']} does not build a data set")
    check_spec(splits.spec, settings["_target_"])
    if settings.get("limit_train_samples") is not None:
        splits.train = subset(
            splits.train, settings["limit_train_samples"], "data.limit_train_samples"
        )
    if settings.get("transforms"):
        splits.train = transformed(splits.train, settings["transforms"], splits.spec.kind)
    if settings.get("collate_fn"):
        splits.collate = collate_fn(settings["collate_fn"], splits)
    if settings.get("views") not in (None, 1):
        splits.prepare = Views(splits.prepare, settings["views"])
    return splits


def check_spec(spec: Any, target: str) -> None:
    """Raises: ConfigError: if a custom spec cannot be saved or used to try a model."""
    if not is_dataclass(spec) or not all(hasattr(spec, name) for name in SPEC_FIELDS):
        raise ConfigError(
            f"data._target_={target}: its spec, {type(spec).__name__}, should be a dataclass "
            f"with {', '.join(SPEC_FIELDS)}, such as ImageSpec in data/splits.py"
        )


def collate_fn(node: Any, splits: Splits) -> Any:
    """The collate function that ``node`` names: a function or an instance of a callable class.

    Raises:
        ConfigError: if ``node`` names neither, or the splits are resident tensors.
    """
    if not isinstance(node, dict) or "_target_" not in node:
        raise ConfigError(
            f"data.collate_fn={node} should name a function: data.collate_fn._target_=..."
        )
    if isinstance(splits.train, TensorSplit):
        raise ConfigError(
            "data.collate_fn is only for samples that are read one by one: leave it out"
        )
    is_class = inspect.isclass(resolve(node["_target_"], "data.collate_fn._target_"))
    return instantiate(
        {**node, "_partial_": not is_class},
        "data.collate_fn",
        later=() if is_class else ("samples",),
    )


def build_data(
    settings: dict[str, Any],
    device: torch.device,
    seed: int,
    ranks: Ranks,
    accumulate_steps: int,
    eval_train_samples: int | None = None,
) -> Loader:
    """The loader of the config's ``data`` node for one process.

    It may download files and write caches, so one process per node should go first.

    Args:
        eval_train_samples: number of training samples in an extra split ``train_eval``.
    """
    for key, kind in LOADING.items():
        check_value(kind, settings.get(key), f"data.{key}")
    loading = {key: int(settings[key]) for key in LOADING}
    splits = build_splits(settings)
    if eval_train_samples is not None:
        splits.train_eval = subset(
            splits.train, eval_train_samples, "trainer.eval_train_samples", for_evaluation=True
        )
    return Loader(splits, device, seed, ranks.rank, ranks.world_size, accumulate_steps, **loading)


def subset(split: Any, count: Any, setting: str, for_evaluation: bool = False) -> Any:
    """A fixed subset of ``count`` training samples, the same for every run seed.

    Raises:
        ConfigError: if there are fewer samples, or the data set is iterable; names ``setting``.
    """
    if isinstance(split, IterableSplit):
        raise ConfigError(
            f"{setting}={count} should be null: an iterable data set is read as a whole"
        )
    if type(count) is not int or not 1 <= count <= len(split):
        raise ConfigError(
            f"{setting}={count} should be null or between 1 and the {len(split)} training samples"
        )
    indices = torch.randperm(len(split), generator=seeded(0, SUBSET_STREAM))[:count].sort().values
    if isinstance(split, TensorSplit) and for_evaluation:
        return split.take_for_evaluation(indices)
    if isinstance(split, TensorSplit | StreamedSplit):
        return split.take(indices)
    return Subset(split, indices.tolist())
