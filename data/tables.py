"""Tables of numbers and categories, encoded for a model by what their training rows show.

A row is kept raw, as float32 ``(columns,)``: the number itself or the place of its category, NaN
where it is missing. Encoding is part of the exported model, as the normalization of images is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from data.held_out import train_val_test
from data.splits import Quantities, Splits, TensorSplit

UNKNOWN = -1.0  # a category that training has not: none of its inputs is 1


@dataclass(frozen=True)
class Column:
    """A column, and what encoding it takes.

    Attributes:
        mean, std: of the training values that are there.
        categories: in the order of their places; empty: the column holds numbers. The last is ""
            where training has rows without one.
        has_missing: numbers only: a further input says where they are missing.
    """

    name: str
    mean: float = 0.0
    std: float = 1.0
    categories: tuple[str, ...] = ()
    has_missing: bool = False

    @property
    def width(self) -> int:
        """Inputs of a model that encode it."""
        return len(self.categories) or 1 + self.has_missing


@dataclass(frozen=True)
class TableSpec:
    """What models, objectives and predictions need to know of a table.

    Model settings that are null in the config are filled from the attribute of the same name.
    """

    name: str
    columns: tuple[Column, ...]
    class_names: tuple[str, ...]  # empty: see quantities
    quantities: Quantities | None = None
    synthetic: bool = False

    kind: ClassVar[str] = "table"
    usual_model: ClassVar[str] = "mlp"  # of conf/model, to suggest for such data

    def __post_init__(self) -> None:
        if not self.columns or not self.num_outputs:
            raise ValueError("a table should have columns, and classes or quantities")

    @property
    def in_features(self) -> int:
        return sum(column.width for column in self.columns)

    @property
    def num_outputs(self) -> int:
        """Of a model: one for every class or quantity."""
        return len(self.quantities.names if self.quantities else self.class_names)

    @property
    def num_classes(self) -> int:
        """The same under the name that most models have for it."""
        return self.num_outputs

    def example(self, count: int) -> Tensor:
        """Zeros in the shape of a prepared batch, to try a model on."""
        return torch.zeros(count, self.in_features)


class EncodeTable(nn.Module):
    """Raw rows ``(N, columns)`` -> ``(N, in_features)``.

    Numbers are standardized by training's mean and deviation, a missing one is the mean and has a
    1 in an input of its own; a category is a 1 among zeros.
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


class PrepareTable:
    """Encodes the rows of a batch on its device; tables are not augmented."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.encode = EncodeTable(columns)

    def __call__(self, batch: tuple[Tensor, ...], draws: object) -> tuple[Tensor, ...]:
        rows, *targets = batch
        return self.encode.to(rows.device)(rows), *targets


def numeric_column(name: str, values: Tensor) -> Column:
    """A column of the training values ``(N,)``, NaN where they are missing.

    One without two different values is encoded as zeros.
    """
    there = values[~values.isnan()].double()
    deviation = there.std(correction=0).item() if len(there) else 0.0
    return Column(
        name=name,
        mean=there.mean().item() if len(there) else 0.0,
        std=deviation if deviation > 0 else 1.0,
        has_missing=len(there) < len(values),
    )


def table_splits(spec: TableSpec, parts: dict[str, TensorSplit], notes: list[str]) -> Splits:
    """Splits of raw rows ``(N, columns)`` with what is to be told of them.

    That are int64 classes ``(N,)``; where rows have several, uint8 ``(N, classes)`` of 0 and 1; or
    float32 ``(N, quantities)``.

    Args:
        parts: ``train``, and ``val`` and ``test`` where there are such.
    """
    prepare = PrepareTable(spec.columns)
    return Splits(*train_val_test(parts), spec, prepare=prepare, notes=notes)
