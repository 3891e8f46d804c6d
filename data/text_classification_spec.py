"""What models, objectives and predictions need to know of labelled documents."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextClassificationSpec:
    """Model settings that are null in the config are filled from the attribute of the same name.

    Attributes:
        max_length: tokens of a text; longer ones are cut.
        tokenizer_content: JSON of a ``tokenizers.Tokenizer``, so that the spec alone can encode.
        pad_token_id: fills up the shorter texts of a batch; the mask hides it.
        architecture: JSON of the configuration of the encoder that the tokenizer belongs to; None
            where it came without one.
    """

    name: str
    class_names: tuple[str, ...]
    max_length: int
    tokenizer_content: str
    pad_token_id: int
    architecture: str | None = None
    synthetic: bool = False

    kind: ClassVar[str] = "text_classification"

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.tokenizer_content)
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_length)
        return tokenizer

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of every text, its special tokens included, cut at ``max_length``."""
        return [encoding.ids for encoding in self.encodings(texts)]

    def encodings(self, texts: Sequence[str]) -> list[Any]:
        """As ``tokenizers`` has them: what was cut off a text is its ``overflowing``."""
        return self.tokenizer.encode_batch(list(texts))

    def tokens_beyond(self, text: str) -> int:
        """How many tokens of ``text`` are cut off, none of them special."""
        rest = self.tokenizer.encode(text).overflowing
        return sum(part.special_tokens_mask.count(0) for part in rest)

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The model's inputs: tokens and mask, each ``(N, longest text)``."""
        rows = [torch.tensor(row) for row in self.tokens(texts)]
        lengths = torch.tensor([len(row) for row in rows])
        tokens = torch.nn.utils.rnn.pad_sequence(rows, True, float(self.pad_token_id))
        return tokens, torch.arange(tokens.shape[1]) < lengths[:, None]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        return self.tokenizer.decode(list(tokens))

    def example(self, count: int) -> tuple[Tensor, Tensor]:
        """Inputs of the greatest length and token id, to try a model on."""
        tokens = torch.full((count, self.max_length), self.tokenizer.get_vocab_size() - 1)
        return tokens, torch.ones_like(tokens, dtype=torch.bool)
