"""Truncated backpropagation through time, for recurrent language models.

The text is read in order, in ``lanes`` parallel streams. Each update starts from the hidden state
of the one before; gradients stop at the start of the window (Williams & Peng, 1990).
"""

from typing import Any

import torch
from torch import Tensor, nn

from core.collectives import sum_over_ranks
from core.errors import ConfigError
from core.schema import NonNegative
from data.loader import Loader
from data.splits import Batch
from objectives.base import Sums
from objectives.language_modeling import LanguageModeling, SampleTokens, cross_entropy


class TruncatedBackpropagation(LanguageModeling):
    """Language modelling on batches of ``data.windows.Lanes``.

    Each lane starts every epoch with a zero state. Evaluation carries the state through each block.

    Args:
        lanes: number of parallel streams over all processes; equals ``data.batch_size``.
        sample_tokens, sample_prompt, sample_temperature, metrics: see :class:`LanguageModeling`.

    Raises:
        ConfigError: if the model has no recurrent state.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: Any,
        lanes: int,
        sample_tokens: SampleTokens,
        sample_prompt: str,
        sample_temperature: NonNegative,
        metrics: Any = (),
    ) -> None:
        super().__init__(model, spec, sample_tokens, sample_prompt, sample_temperature, metrics)
        state = model.new_state(lanes) if hasattr(model, "new_state") else None  # type: ignore[operator]
        if not isinstance(state, Tensor):
            raise ConfigError(
                f"{type(model).__name__} has no recurrent state to carry: use "
                "objective=language_modeling"
            )
        self.carried = state  # (parts, layers, lanes, width); a process updates only its lanes
        self.is_local = torch.zeros(lanes, 1, dtype=torch.bool, device=state.device)

    def setup(self, data: Loader) -> None:
        """Raise ConfigError unless every update reads exactly one window of each lane.

        Two windows of a lane in one update would both start from the state before the first.
        """
        lanes = getattr(data.splits["train"], "lanes", None)
        if not lanes == len(self.is_local) == data.batch_size:
            raise ConfigError(
                f"an update reads one window of every lane: data.lanes={lanes} and objective.lanes="
                f"{len(self.is_local)} should be data.batch_size={data.batch_size}; leave them out"
            )

    def forward(self, phase: str, batch: Batch) -> tuple[Tensor, Sums]:
        inputs, targets, lane, is_start = batch
        state = self.carried[:, :, lane].masked_fill(is_start[:, None], 0.0)
        logits, state = self.model(inputs, state)
        self.carried[:, :, lane] = state.detach()
        self.is_local[lane] = True
        return self.training_loss(logits, targets)

    def evaluate(self, model: nn.Module, batch: Batch) -> tuple[Sums, dict[str, Tensor]]:
        inputs, targets = batch
        length = self.spec.context_length  # bounds the memory of the logits
        loss, state = torch.zeros((), device=inputs.device), None
        for part, labels in zip(inputs.split(length, 1), targets.split(length, 1), strict=True):
            logits, state = model(part, state)
            self.update_metrics(logits, labels)
            loss = loss + cross_entropy(logits, labels, reduction="sum")
        return self.sums(loss, targets), {}

    def state(self) -> dict[str, Tensor]:
        if not self.is_local.any():
            return {"carried": self.carried}
        return {"carried": sum_over_ranks(self.carried * self.is_local)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Raise ConfigError if the state has another number of lanes."""
        if state["carried"].shape != self.carried.shape:
            raise ConfigError(
                f"the checkpoint has the state of {state['carried'].shape[2]} lanes, this run "
                f"has data.batch_size={self.carried.shape[2]}"
            )
        self.carried.copy_(state["carried"])
        self.is_local.fill_(False)
