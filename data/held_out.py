"""Stratified validation and test splits taken from the training split."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from core.errors import ConfigError

SPLITS = ("train", "val", "test")
SPLIT_SEED = 5000  # not the run's seed: every run has the same splits


def stratified_split(labels: Tensor, fractions: Sequence[float]) -> list[Tensor]:
    """Split indices into disjoint sets with the same class proportions.

    Args:
        labels: ``(N,)`` class of each sample.
        fractions: share of each set; they sum to 1.

    Returns:
        One sorted index tensor per fraction, of exactly that share of the samples (rounded).
    """
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    # position of each sample within its shuffled class, between 0 and 1
    places = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        indices = (labels == label).nonzero().squeeze(1)
        shuffled = indices[torch.randperm(len(indices), generator=generator)]
        places[shuffled] = (torch.arange(len(indices)) + 0.5).double() / len(indices)
    order = places.argsort(stable=True)
    bounds = [round(sum(fractions[:i]) * len(labels)) for i in range(len(fractions) + 1)]
    return [order[low:high].sort().values for low, high in pairwise(bounds)]


def split_off(
    parts: dict[str, Any], fractions: dict[str, float], classes: Tensor | None = None
) -> dict[str, Any]:
    """``parts`` with the missing splits taken from ``train``, in the order of ``SPLITS``.

    Args:
        parts: splits with a method ``take``, or lists of rows.
        fractions: share of the training samples for each split that is missing; 0: no such split.
        classes: ``(N,)`` class of each training sample, to stratify by; None: the split's labels,
            if it has any in memory.

    Raises:
        ConfigError: if nothing would be left for training.
    """
    train = parts["train"]
    missing = {name: fraction for name, fraction in fractions.items() if name not in parts}
    rest = 1 - sum(missing.values())
    if round(rest * len(train)) < 1:
        taken = " and ".join(f"data.{name}_fraction={part}" for name, part in missing.items())
        raise ConfigError(
            f"{taken or 'data'}: none of {len(train):,} samples would be left for training"
        )
    if classes is None:
        classes = getattr(train, "labels", None)
    if classes is None or classes.ndim != 1:
        classes = torch.zeros(len(train))
    indices = stratified_split(classes, (rest, *missing.values()))
    splits = dict(parts)
    for name, chosen in zip(("train", *missing), indices, strict=True):
        if len(chosen):
            is_list = isinstance(train, list)
            splits[name] = [train[i] for i in chosen.tolist()] if is_list else train.take(chosen)
    return {name: splits[name] for name in SPLITS if name in splits}


def train_val_test(parts: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The splits in this order; None for one that is missing."""
    return parts["train"], parts.get("val"), parts.get("test")


def numbered(names: Sequence[str]) -> Tensor:
    """The place ``(N,)`` of each name among the sorted distinct names."""
    places = {name: place for place, name in enumerate(sorted(set(names)))}
    return torch.tensor([places[name] for name in names])
