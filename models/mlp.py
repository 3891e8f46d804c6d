"""A multilayer perceptron for tables."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """``(N, in_features)`` -> ``(N, num_outputs)``: hidden layers of linear, ReLU and dropout.

    Args:
        widths: sizes of the hidden layers; empty: a linear model.
    """

    def __init__(
        self, in_features: int, num_outputs: int, widths: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise([in_features, *widths]):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear([in_features, *widths][-1], num_outputs)

    def forward(self, features: Tensor) -> Tensor:
        return self.head(self.hidden(features))
