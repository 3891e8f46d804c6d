"""Splits of a text: windows of a resident token tensor, in random or sequential order.

A sample is ``length`` tokens, with the same shifted by one as targets. Tokens are stored in the
smallest dtype that fits; only batches are int64.
"""

import torch
from torch import Tensor

from data.splits import Batch, TensorSplit

IGNORE = -100  # a target that is not counted: cross_entropy's default ignore_index


class Windows(TensorSplit):
    """Base class: a text of ``(T,)`` tokens, and the length of a sample."""

    def __init__(self, tokens: Tensor, length: int) -> None:
        super().__init__(tokens)
        self.length = length

    def at(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets ``(N, length)`` of the windows that begin at ``starts``.

        Positions beyond the end repeat the last token.
        """
        tokens = self.tensors[0]
        places = starts[:, None] + torch.arange(self.length + 1, device=starts.device)
        windows = tokens[places.clamp_(max=len(tokens) - 1)].long()
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


class RandomWindows(Windows):
    """Shuffled windows at random positions; a sample's index is its first token.

    An epoch has as many windows as fit into the text side by side. One start is drawn from each of
    as many equal intervals, so that no part of the text is left out or favoured.
    """

    def __len__(self) -> int:
        return (len(self.tensors[0]) - 1) // self.length

    def epoch_order(self, generator: torch.Generator) -> Tensor:
        count, num_starts = len(self), len(self.tensors[0]) - self.length
        places = torch.rand(count, generator=generator, dtype=torch.double) + torch.arange(count)
        starts = (places * (num_starts / count)).long().clamp_(max=num_starts - 1)
        return starts[torch.randperm(count, generator=generator)]

    def take(self, indices: Tensor) -> "RandomWindows":
        """The beginning of the text, long enough for ``len(indices)`` windows."""
        return RandomWindows(self.tensors[0][: len(indices) * self.length + 1], self.length)

    def take_for_evaluation(self, indices: Tensor) -> TensorSplit:
        """The windows at ``indices`` when the text is cut into consecutive windows."""
        return TensorSplit(*self.at(indices * self.length))

    def gather(self, indices: Tensor) -> Batch:
        """Inputs and targets, each ``(N, length)``."""
        return self.at(indices)


class Lanes(Windows):
    """The text as ``lanes`` parallel streams, for models that carry a state across batches.

    Update ``k`` reads the ``k``-th window of every lane, so each batch continues the previous one.
    """

    def __init__(self, tokens: Tensor, length: int, lanes: int) -> None:
        super().__init__(tokens, length)
        self.lanes = lanes
        self.lane_length = (len(tokens) - 1) // lanes

    def __len__(self) -> int:
        return self.lanes * (self.lane_length // self.length)

    def epoch_order(self, generator: torch.Generator) -> Tensor:
        return torch.arange(len(self))

    def take(self, indices: Tensor) -> "Lanes":
        """The beginning of the text, long enough for ``len(indices)`` windows."""
        return Lanes(self.tensors[0][: len(indices) * self.length + 1], self.length, self.lanes)

    def take_for_evaluation(self, indices: Tensor) -> TensorSplit:
        """The first windows of every lane, at least ``len(indices)`` in all."""
        windows = -(-len(indices) // self.lanes)
        starts = torch.arange(self.lanes) * self.lane_length
        return TensorSplit(*Windows(self.tensors[0], windows * self.length).at(starts))

    def gather(self, indices: Tensor) -> Batch:
        """Inputs and targets ``(N, length)``, lane ``(N,)``, whether it starts here ``(N,)``."""
        lane, window = indices % self.lanes, indices // self.lanes
        inputs, targets = self.at(lane * self.lane_length + window * self.length)
        return inputs, targets, lane, window == 0


class Blocks(Windows):
    """Consecutive blocks of the text, with every target in exactly one, for evaluation.

    The last block is padded with ``IGNORE`` as targets.
    """

    def __len__(self) -> int:
        return -(-(len(self.tensors[0]) - 1) // self.length)

    def gather(self, indices: Tensor) -> Batch:
        """Inputs and targets, each ``(N, length)``."""
        starts = indices * self.length
        inputs, targets = self.at(starts)
        places = starts[:, None] + torch.arange(1, self.length + 1, device=starts.device)
        return inputs, targets.masked_fill(places >= len(self.tensors[0]), IGNORE)
