"""Real tables that scikit-learn carries: nothing to download."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from data.held_out import split_off
from data.splits import Splits, TensorSplit, quantities
from data.tables import Column, TableSpec, numeric_column, table_splits

FRACTIONS = {"val": 0.15, "test": 0.15}


def diabetes(root: str = "") -> Splits:
    """442 patients, 10 measurements, and how far the disease went in a year (25 to 346).

    310 for training, 66 each for validation and test. ``root`` is not used: nothing is kept.
    Source: Efron, Hastie, Johnstone and Tibshirani, Least Angle Regression, 2004.
    """
    from sklearn.datasets import load_diabetes  # costs seconds: only for the runs that use it

    table = load_diabetes(scaled=False)
    parts = split(table.data, torch.as_tensor(table.target, dtype=torch.float32)[:, None])
    spec = TableSpec(
        name="diabetes",
        columns=columns_of(parts, table.feature_names),
        class_names=(),
        quantities=quantities(["progression"], [""], parts["train"].tensors[1]),
    )
    return table_splits(spec, parts, [])


def breast_cancer(root: str = "") -> Splits:
    """569 tumours, 30 measurements of their cells, malignant or benign.

    398 for training, 85 for validation and 86 for test, both classes alike. ``root`` is not used:
    nothing is kept. Source: UCI, Breast Cancer Wisconsin (Diagnostic).
    """
    from sklearn.datasets import load_breast_cancer  # costs seconds: only for the runs that use it

    table = load_breast_cancer()
    parts = split(table.data, torch.as_tensor(table.target).long())
    spec = TableSpec(
        name="breast_cancer",
        columns=columns_of(parts, table.feature_names),
        class_names=tuple(map(str, table.target_names)),
    )
    return table_splits(spec, parts, [])


def split(rows: Any, targets: Tensor) -> dict[str, TensorSplit]:
    """The rows in fixed parts, every class in the same proportions."""
    inputs = torch.as_tensor(rows, dtype=torch.float32)
    return split_off({"train": TensorSplit(inputs, targets)}, FRACTIONS)


def columns_of(parts: dict[str, TensorSplit], names: Sequence[Any]) -> tuple[Column, ...]:
    rows, _ = parts["train"].tensors
    return tuple(map(numeric_column, map(str, names), rows.T))
