"""LSTM and GRU language models, with a state of fixed size."""

import math
from typing import Literal

import torch
from torch import Tensor, nn


class RecurrentModel(nn.Module):
    """Next-token logits: ``(N, T)`` tokens to ``(N, T, vocab_size)``, for any T.

    Args:
        cell: ``lstm`` or ``gru``.
        width: channels of the embedding and of every layer.
        tie_weights: use the embedding as the output layer (arXiv:1608.05859).
    """

    def __init__(
        self,
        cell: Literal["lstm", "gru"],
        vocab_size: int,
        num_layers: int,
        width: int,
        dropout: float = 0.0,
        tie_weights: bool = True,
    ) -> None:
        super().__init__()
        self.cell = cell
        self.embedding = nn.Embedding(vocab_size, width)
        layers = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        self.layers = layers(
            width,
            width,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,  # torch drops between layers only
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, vocab_size)
        self.initialize()
        if tie_weights:
            self.head.weight = self.embedding.weight

    def initialize(self) -> None:
        """Start with logits near zero, and with a forget-gate bias of 1 in an LSTM."""
        for parameter in (self.embedding.weight, self.head.weight):
            nn.init.normal_(parameter, std=1 / math.sqrt(self.embedding.embedding_dim))
        nn.init.zeros_(self.head.bias)
        if self.cell == "lstm":
            for name, parameter in self.layers.named_parameters():
                if name.startswith("bias_ih"):
                    _, forget, _, _ = parameter.detach().chunk(4)
                    forget.fill_(1.0)

    def new_state(self, count: int) -> Tensor:
        """The initial state: zeros ``(parts, num_layers, count, width)``.

        The parts are the hidden state and, in an LSTM, the cell state.
        """
        parts = 2 if self.cell == "lstm" else 1
        width = self.embedding.embedding_dim
        return self.embedding.weight.new_zeros(parts, self.layers.num_layers, count, width)

    def forward(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits, and the state after the last token."""
        if state is None:
            state = self.new_state(len(tokens))
        x = self.dropout(self.embedding(tokens))
        if self.cell == "lstm":
            x, (output, memory) = self.layers(x, (state[0], state[1]))
            state = torch.stack([output, memory])
        else:
            x, output = self.layers(x, state[0])
            state = output[None]
        return self.head(self.dropout(x)), state.to(self.embedding.weight.dtype)
