"""Real tables that scikit-learn carries: nothing to download."""

import torch
from torch import Tensor

from data.splits import Splits, quantities, stratified_split
from data.tables import TableSpec, numeric_column, table_splits

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}


def diabetes(root: str = "") -> Splits:
    """442 patients, 10 measurements, and how far the disease went in a year (25 to 346).

    310 for training, 66 each for validation and test. ``root`` is not used: nothing is kept.
    Source: Efron, Hastie, Johnstone and Tibshirani, Least Angle Regression, 2004.
    """
    from sklearn.datasets import load_diabetes  # costs seconds: only for the runs that use it

    table = load_diabetes(scaled=False)
    rows, targets = float32(table.data), float32(table.target)[:, None]
    parts = split(rows, targets, torch.zeros(len(rows)))
    train_rows, train_targets = parts["train"]
    spec = TableSpec(
        name="diabetes",
        columns=tuple(map(numeric_column, table.feature_names, train_rows.T)),
        class_names=(),
        quantities=quantities(["progression"], [""], train_targets),
    )
    return table_splits(spec, parts, [])


def breast_cancer(root: str = "") -> Splits:
    """569 tumours, 30 measurements of their cells, malignant or benign.

    398 for training, 85 for validation and 86 for test, both classes alike. ``root`` is not used:
    nothing is kept. Source: UCI, Breast Cancer Wisconsin (Diagnostic).
    """
    from sklearn.datasets import load_breast_cancer  # costs seconds: only for the runs that use it

    table = load_breast_cancer()
    rows, labels = float32(table.data), torch.as_tensor(table.target).long()
    parts = split(rows, labels, labels)
    spec = TableSpec(
        name="breast_cancer",
        columns=tuple(map(numeric_column, map(str, table.feature_names), parts["train"][0].T)),
        class_names=tuple(map(str, table.target_names)),
    )
    return table_splits(spec, parts, [])


def float32(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


def split(rows: Tensor, targets: Tensor, classes: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """The rows in fixed parts, every class in the same proportions."""
    parts = stratified_split(classes, list(FRACTIONS.values()))
    return {name: (rows[part], targets[part]) for name, part in zip(FRACTIONS, parts, strict=True)}
