"""Real tables that come with scikit-learn: nothing to download."""

from typing import Any

import torch
from torch import Tensor

from data.held_out import split_off
from data.splits import Splits, TensorSplit, quantities
from data.tables import TableSpec, numeric_columns, table_splits

FRACTIONS = {"val": 0.15, "test": 0.15}


def diabetes(root: str = "") -> Splits:
    """442 patients, 10 measurements; the target is disease progression in a year (25 to 346).

    310 training, 66 validation and 66 test rows. ``root`` is not used: nothing is cached.
    Source: Efron, Hastie, Johnstone and Tibshirani, Least Angle Regression, 2004.
    """
    from sklearn.datasets import load_diabetes  # takes seconds to import: only when used

    table = load_diabetes(scaled=False)
    parts = split(table.data, torch.as_tensor(table.target, dtype=torch.float32)[:, None])
    spec = TableSpec(
        name="diabetes",
        columns=numeric_columns(map(str, table.feature_names), parts["train"].tensors[0]),
        class_names=(),
        quantities=quantities(["progression"], [""], parts["train"].tensors[1]),
    )
    return table_splits(spec, parts, [])


def breast_cancer(root: str = "") -> Splits:
    """569 tumours, 30 measurements of their cell nuclei, malignant or benign.

    398 training, 85 validation and 86 test rows, stratified by class. ``root`` is not used:
    nothing is cached. Source: UCI, Breast Cancer Wisconsin (Diagnostic).
    """
    from sklearn.datasets import load_breast_cancer  # takes seconds to import: only when used

    table = load_breast_cancer()
    parts = split(table.data, torch.as_tensor(table.target).long())
    spec = TableSpec(
        name="breast_cancer",
        columns=numeric_columns(map(str, table.feature_names), parts["train"].tensors[0]),
        class_names=tuple(map(str, table.target_names)),
    )
    return table_splits(spec, parts, [])


def split(rows: Any, targets: Tensor) -> dict[str, TensorSplit]:
    """Fixed training, validation and test splits of the rows, stratified by class."""
    inputs = torch.as_tensor(rows, dtype=torch.float32)
    return split_off({"train": TensorSplit(inputs, targets)}, FRACTIONS)
