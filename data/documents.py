"""Labelled documents as tokens, and the spec that describes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from data.splits import Batch, TensorSplit


@dataclass(frozen=True)
class TextClassificationSpec:
    """Properties of labelled documents that models, objectives and predictions need.

    Model settings that are null in the config are filled from the attribute of the same name.

    Attributes:
        max_length: maximum number of tokens of a document; longer ones are truncated.
        tokenizer_content: JSON of a ``tokenizers.Tokenizer``, so that the spec alone can encode.
        pad_token_id: pads the shorter documents of a batch; the mask hides it.
        architecture: JSON config of the encoder that the tokenizer belongs to; None if it came
            without one.
    """

    name: str
    class_names: tuple[str, ...]
    max_length: int
    tokenizer_content: str
    pad_token_id: int
    architecture: str | None = None
    synthetic: bool = False

    kind: ClassVar[str] = "text_classification"
    usual_model: ClassVar[str] = "bert"  # name in conf/model to suggest for such data

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

    def encodings(self, texts: Sequence[str]) -> list[Any]:
        """Encode every text with special tokens, truncated to ``max_length``.

        Returns ``tokenizers.Encoding`` objects with ``ids``, and the rest in ``overflowing``.
        """
        return self.tokenizer.encode_batch(list(texts))

    def tokens_beyond(self, text: str) -> int:
        """Number of tokens of ``text`` lost to truncation, special tokens not counted."""
        rest = self.tokenizer.encode(text).overflowing
        return sum(part.special_tokens_mask.count(0) for part in rest)

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The model's inputs: tokens and mask, each ``(N, longest text)``."""
        rows = [torch.tensor(encoding.ids) for encoding in self.encodings(texts)]
        lengths = torch.tensor([len(row) for row in rows])
        tokens = torch.nn.utils.rnn.pad_sequence(rows, True, float(self.pad_token_id))
        return tokens, torch.arange(tokens.shape[1]) < lengths[:, None]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        return self.tokenizer.decode(list(tokens))

    def example(self, count: int) -> tuple[Tensor, Tensor]:
        """A batch of the maximum length and the highest token id, to try a model on."""
        tokens = torch.full((count, self.max_length), self.tokenizer.get_vocab_size() - 1)
        return tokens, torch.ones_like(tokens, dtype=torch.bool)


class TokenSplit(TensorSplit):
    """Documents of different length; each batch is padded to its longest one.

    Args:
        tokens: ``(all tokens,)`` of all documents, end to end.
        starts: ``(N,)`` index of the first token of each document.
        lengths: ``(N,)`` number of tokens of each document, 1 or more.
        labels: ``(N,)``.
    """

    def __init__(
        self, tokens: Tensor, starts: Tensor, lengths: Tensor, labels: Tensor, pad_token_id: int
    ) -> None:
        super().__init__(starts, lengths, labels)
        self.lengths = lengths  # kept on the CPU, so that the maximum needs no device sync
        self.all_tokens = tokens
        self.pad_token_id = pad_token_id

    def to(self, device: torch.device) -> "TokenSplit":
        moved = super().to(device)
        assert isinstance(moved, TokenSplit)
        moved.all_tokens = self.all_tokens.to(device)
        return moved

    def take(self, indices: Tensor) -> "TokenSplit":
        starts, lengths, labels = super().gather(indices)
        return TokenSplit(self.all_tokens, starts, lengths, labels, self.pad_token_id)

    def text(self, index: int) -> list[int]:
        """The token ids of one document."""
        start, length = (int(tensor[index]) for tensor in self.tensors[:2])
        return self.all_tokens[start : start + length].tolist()

    def batch(self, indices: Tensor) -> Batch:
        device = self.all_tokens.device
        longest = int(self.lengths[indices].max())
        return self.padded(indices.to(device, non_blocking=True), longest)

    def gather(self, indices: Tensor) -> Batch:
        return self.padded(indices, int(self.tensors[1][indices].max()))

    def padded(self, indices: Tensor, longest: int) -> Batch:
        """Tokens and mask, each ``(N, longest)``, and labels ``(N,)``."""
        starts, lengths, labels = super().gather(indices)
        offsets = torch.arange(longest, device=starts.device)
        mask = offsets < lengths[:, None]
        places = (starts[:, None] + offsets).clamp_(max=len(self.all_tokens) - 1)
        tokens = self.all_tokens[places].long().masked_fill_(~mask, self.pad_token_id)
        return tokens, mask, labels
