"""Stratified validation and test splits taken from the training split."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from core.errors import ConfigError
from data.splits import TensorSplit

SPLIT_SEED = 5000  # not the run's seed: every run has the same splits


def stratified_split(
    labels: Tensor, fractions: Sequence[float], seed: int = SPLIT_SEED
) -> list[Tensor]:
    """Split indices into disjoint sets with the same class proportions.

    Args:
        labels: ``(N,)`` class of each sample.
        fractions: share of each set; they sum to 1.

    Returns:
        One sorted index tensor per fraction, of exactly that share of the samples (rounded).
    """
    generator = torch.Generator().manual_seed(seed)
    # position of each sample within its shuffled class, between 0 and 1
    places = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        indices = (labels == label).nonzero().squeeze(1)
        shuffled = indices[torch.randperm(len(indices), generator=generator)]
        places[shuffled] = (torch.arange(len(indices)) + 0.5).double() / len(indices)
    order = places.argsort(stable=True)
    bounds = [round(sum(fractions[:i]) * len(labels)) for i in range(len(fractions) + 1)]
    return [order[low:high].sort().values for low, high in pairwise(bounds)]


def held_out(classes: Tensor, fractions: dict[str, float]) -> dict[str, Tensor]:
    """Indices of ``train`` and of the splits taken from it, stratified by class.

    Args:
        classes: ``(N,)`` class of each sample.
        fractions: share of the samples for each split to take; 0: no such split.

    Raises:
        ConfigError: if a fraction is out of range, or nothing would be left for training.
    """
    for name, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise ConfigError(f"data.{name}_fraction={fraction} should be at least 0 and below 1")
    rest = 1 - sum(fractions.values())
    if round(rest * len(classes)) < 1:
        taken = " and ".join(f"data.{name}_fraction={part}" for name, part in fractions.items())
        raise ConfigError(
            f"{taken or 'data'}: none of {len(classes):,} samples would be left for training"
        )
    parts = stratified_split(classes, (rest, *fractions.values()))
    return {
        name: part for name, part in zip(("train", *fractions), parts, strict=True) if len(part)
    }


def split_off(parts: dict[str, Any], fractions: dict[str, float]) -> dict[str, Any]:
    """``parts`` with the missing splits taken from ``train``; see :func:`held_out`."""
    train = parts["train"]
    labels = labels_of(train)
    if labels is None or labels.ndim != 1:
        labels = torch.zeros(len(train))
    missing = {name: part for name, part in fractions.items() if name not in parts}
    indices = held_out(labels, missing)
    return parts | {name: train.take(chosen) for name, chosen in indices.items()}


def labels_of(split: Any) -> Tensor | None:
    """The targets of a split's samples; None if they are not in memory."""
    return split.tensors[-1] if isinstance(split, TensorSplit) else getattr(split, "labels", None)


def train_val_test(parts: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The splits in this order; None for one that is missing."""
    return parts["train"], parts.get("val"), parts.get("test")
