"""Tables of numbers and categories, encoded with the statistics of the training rows.

A row is stored raw as float32 ``(columns,)``: a number or the index of a category, NaN where it is
missing. The encoding is part of the exported model, like the normalization of images.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from data.held_out import train_val_test
from data.splits import Batch, Outputs, Quantities, Splits, TensorSplit

UNKNOWN = -1.0  # a category that training does not have: encoded as zeros


@dataclass(frozen=True)
class Column:
    """A column and its encoding.

    Attributes:
        mean, std: statistics of the training values, missing ones left out.
        categories: names in the order of their indices; empty: a numeric column. The last is "" if
            it is missing in some training rows.
        has_missing: numeric only: values are missing in training, and an extra input marks them.
    """

    name: str
    mean: float = 0.0
    std: float = 1.0
    categories: tuple[str, ...] = ()
    has_missing: bool = False

    @property
    def width(self) -> int:
        """Number of model inputs that encode the column."""
        return len(self.categories) or 1 + self.has_missing


@dataclass(frozen=True)
class TableSpec(Outputs):
    """Properties of a table that models, objectives and predictions need.

    Model settings that are null in the config are filled from the attribute of the same name.
    """

    name: str
    columns: tuple[Column, ...]
    class_names: tuple[str, ...]  # empty for regression
    quantities: Quantities | None = None
    synthetic: bool = False

    kind: ClassVar[str] = "table"
    usual_model: ClassVar[str] = "mlp"  # name in conf/model to suggest for such data

    def __post_init__(self) -> None:
        if not self.columns or not self.num_outputs:
            raise ValueError("a table should have columns, and classes or quantities")

    @property
    def in_features(self) -> int:
        return sum(column.width for column in self.columns)

    def example(self, count: int) -> Tensor:
        """Zeros in the shape of a prepared batch, to try a model on."""
        return torch.zeros(count, self.in_features)


class EncodeTable(nn.Module):
    """Raw rows ``(N, columns)`` -> ``(N, in_features)``.

    Numbers are standardized by the training mean and deviation; a missing one becomes the mean,
    with a 1 in an extra input. Categories are one-hot.
    """

    numbers: Tensor
    mean: Tensor
    std: Tensor
    gaps: Tensor
    categorical: Tensor
    places: Tensor

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        numbers = [i for i, column in enumerate(columns) if not column.categories]
        gaps = [i for i, column in enumerate(columns) if column.has_missing]
        ones = [
            (i, place)
            for i, column in enumerate(columns)
            for place in range(len(column.categories))
        ]
        constants = {
            "numbers": torch.tensor(numbers, dtype=torch.long),
            "mean": torch.tensor([columns[i].mean for i in numbers]),
            "std": torch.tensor([columns[i].std for i in numbers]),
            "gaps": torch.tensor(gaps, dtype=torch.long),
            "categorical": torch.tensor([i for i, _ in ones], dtype=torch.long),
            "places": torch.tensor([float(place) for _, place in ones]),
        }
        for name, value in constants.items():
            self.register_buffer(name, value)

    def forward(self, rows: Tensor) -> Tensor:
        standardized = (rows[:, self.numbers] - self.mean) / self.std
        return torch.cat(
            [
                torch.where(standardized.isnan(), 0.0, standardized),
                rows[:, self.gaps].isnan().float(),
                rows[:, self.categorical].eq(self.places).float(),
            ],
            1,
        )


def numeric_column(name: str, values: Tensor) -> Column:
    """The column with the statistics of its training values ``(N,)``, NaN where missing.

    A constant column is encoded as zeros.
    """
    present = values[~values.isnan()].double()
    deviation = present.std(correction=0).item() if len(present) else 0.0
    return Column(
        name=name,
        mean=present.mean().item() if len(present) else 0.0,
        std=deviation if deviation > 0 else 1.0,
        has_missing=len(present) < len(values),
    )


def numeric_columns(names: Iterable[str], rows: Tensor) -> tuple[Column, ...]:
    """The columns of a table of training rows ``(N, columns)``; see :func:`numeric_column`."""
    return tuple(map(numeric_column, names, rows.T))


def table_splits(spec: TableSpec, parts: dict[str, TensorSplit], notes: list[str]) -> Splits:
    """Data set of raw rows ``(N, columns)`` with their targets.

    Targets are int64 classes ``(N,)``; uint8 labels ``(N, classes)`` of 0 and 1 (multi-label); or
    float32 ``(N, quantities)``.

    Args:
        parts: ``train``, and optionally ``val`` and ``test``.
    """
    encode = EncodeTable(spec.columns)

    def prepare(batch: Batch, draws: object) -> Batch:
        rows, *targets = batch
        return encode.to(rows.device)(rows), *targets

    return Splits(*train_val_test(parts), spec, prepare=prepare, notes=notes)
