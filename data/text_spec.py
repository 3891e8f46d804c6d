"""What models, objectives and predictions need to know of a corpus."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from data.tokenizer import TOKENIZERS, Tokenizer


@dataclass(frozen=True)
class TextSpec:
    """Model settings that are null in the config are filled from the attribute of the same name.

    Attributes:
        context_length: tokens a training sample has.
        tokenizer_kind: a name in ``data.tokenizer.TOKENIZERS``.
        tokenizer_content: what builds the tokenizer again, so that the spec alone can decode.
    """

    name: str
    vocab_size: int
    context_length: int
    tokenizer_kind: str
    tokenizer_content: str
    synthetic: bool = False

    kind: ClassVar[str] = "text"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return TOKENIZERS[self.tokenizer_kind](self.tokenizer_content)  # type: ignore[call-arg]

    def encode(self, text: str) -> list[int]:
        """Raises: ConfigError: ``text`` has characters without a token; the message names them."""
        return self.tokenizer.encode(text).tolist()

    def decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(tokens)

    def example(self, count: int) -> Tensor:
        """Token ids in the shape of a prepared batch, to try a model on."""
        return torch.zeros(count, self.context_length, dtype=torch.long)
