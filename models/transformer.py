"""Transformer: a decoder-only language model with relative positions.

Pre-norm blocks of causal self-attention and a GELU MLP (GPT-2), rotary positions by default.
"""

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention import Extend, SelfAttention
from models.positions import alibi_bias, rotary_table

INIT_STD = 0.02  # GPT-2's


class KeyValueCache:
    """Keys and values of the tokens that the model has read.

    ``(num_layers, 2, N, num_heads, capacity, head_width)``, of which ``length`` tokens are filled.
    """

    def __init__(self, memory: Tensor) -> None:
        self.memory = memory
        self.length = 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append new tokens to a layer; returns all its keys and values so far, detached."""
        end = self.length + keys.shape[2]
        self.memory[layer, 0, :, :, self.length : end] = keys.detach()
        self.memory[layer, 1, :, :, self.length : end] = values.detach()
        return self.memory[layer, 0, :, :, :end], self.memory[layer, 1, :, :, :end]


class Block(nn.Module):
    """Pre-norm transformer block: attention, then MLP, each with a residual connection."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.attention = SelfAttention(
            width, num_heads, bias=False, dropout=dropout, is_causal=True
        )
        self.mlp_norm = nn.LayerNorm(width, bias=False)
        self.up_proj = nn.Linear(width, 4 * width, bias=False)
        self.down_proj = nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, table: Tensor | None, mask: Tensor | None, extend: Extend | None
    ) -> Tensor:
        """See :meth:`models.attention.SelfAttention.forward`."""
        x = x + self.dropout(self.attention(self.attention_norm(x), table, mask, extend))
        return x + self.dropout(self.down_proj(F.gelu(self.up_proj(self.mlp_norm(x)))))


class Transformer(nn.Module):
    """Next-token logits: ``(N, T)`` tokens to ``(N, T, vocab_size)``, T at most context_length.

    Args:
        width: channels of a token; a multiple of ``2 * num_heads``.
        positions: ``rotary`` or ``alibi``; both are relative.
        tie_weights: use the embedding as the output layer (arXiv:1608.05859).
    """

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        num_layers: int,
        num_heads: int,
        width: int,
        dropout: float = 0.0,
        positions: Literal["rotary", "alibi"] = "rotary",
        tie_weights: bool = True,
    ) -> None:
        super().__init__()
        if width % (2 * num_heads):
            raise ValueError(f"width={width} must be a multiple of 2 * num_heads={2 * num_heads}")
        self.context_length = context_length
        self.num_heads = num_heads
        self.embedding = nn.Embedding(vocab_size, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = nn.Linear(width, vocab_size, bias=False)
        is_rotary = positions == "rotary"
        table = rotary_table(context_length, width // num_heads) if is_rotary else None
        bias = None if is_rotary else alibi_bias(num_heads, context_length)
        self.table: Tensor | None
        self.bias: Tensor | None
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.initialize()
        if tie_weights:
            self.head.weight = self.embedding.weight

    def initialize(self) -> None:
        """GPT-2's initialization: residual projections are scaled by ``1 / sqrt(2 * layers)``."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                is_added = name.endswith(("out_proj.weight", "down_proj.weight"))
                depth = math.sqrt(2 * len(self.blocks)) if is_added else 1.0
                nn.init.normal_(parameter, std=INIT_STD / depth)

    def new_state(self, count: int) -> KeyValueCache:
        """An empty cache for ``count`` texts."""
        weight = self.embedding.weight
        head_width = weight.shape[1] // self.num_heads
        size = (len(self.blocks), 2, count, self.num_heads, self.context_length, head_width)
        return KeyValueCache(weight.new_zeros(size))

    def forward(
        self, tokens: Tensor, state: KeyValueCache | None = None
    ) -> tuple[Tensor, KeyValueCache | None]:
        """Logits, and ``state`` extended by ``tokens`` in place, if given.

        Raises:
            ValueError: if there are more tokens than ``context_length``.
        """
        start = 0 if state is None else state.length
        end = start + tokens.shape[1]
        if end > self.context_length:
            raise ValueError(f"{end} tokens do not fit a context_length of {self.context_length}")
        table = None if self.table is None else self.table[:, start:end]
        mask = self.mask(start, end)
        x = self.dropout(self.embedding(tokens))
        for layer, block in enumerate(self.blocks):
            x = block(x, table, mask, None if state is None else partial(state.extend, layer))
        if state is not None:
            state.length = end
        return self.head(self.norm(x)), state

    def mask(self, start: int, end: int) -> Tensor | None:
        """Attention mask or bias of tokens ``start`` to ``end`` over all tokens up to ``end``."""
        if self.bias is not None:
            return self.bias[:, start:end, :end].to(self.embedding.weight.dtype)
        if start == 0 or end - start == 1:
            return None  # plain causal attention
        later = torch.ones(end - start, end, dtype=torch.bool, device=self.embedding.weight.device)
        return later.tril(start)
