"""Tokenizers: text to token ids and back, each serialized as a string, its ``content``.

To add one, write a class with the same methods and name it in ``TOKENIZERS``. ``train`` gets the
whole text, its training part, and the vocabulary size; ``Tokenizer(content)`` restores it.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from core.errors import ConfigError

PIECE = 1_000_000  # characters to encode at once: code points take 4 bytes each


def code_points(text: str) -> numpy.ndarray:
    """The Unicode number of every character, uint32 ``(T,)``."""
    return numpy.frombuffer(text.encode("utf-32-le"), numpy.uint32)


class CharTokenizer:
    """One token per character; ``content`` is all characters, sorted by code point."""

    def __init__(self, content: str) -> None:
        self.content = content
        self.vocab_size = len(content)

    @classmethod
    def train(cls, text: str, train_text: str, vocab_size: int) -> "CharTokenizer":
        # from the whole text: a character that only the validation split has needs a token too, and
        # the set of characters is nothing to overfit to
        return cls("".join(sorted(set(text))))

    def encode(self, text: str) -> Tensor:
        """The tokens of ``text``, ``(T,)``; uint8 for a vocabulary of at most 256, else int32.

        Raises:
            ConfigError: if ``text`` has characters without a token.
        """
        unknown = sorted(set(text) - set(self.content))
        if unknown:
            raise ConfigError(
                f"characters that the model has no token for: {' '.join(map(repr, unknown))}"
            )
        dtype = numpy.uint8 if self.vocab_size <= 256 else numpy.int32
        token_of = numpy.zeros(sys.maxunicode + 1, dtype)
        token_of[code_points(self.content)] = numpy.arange(self.vocab_size)
        tokens = numpy.empty(len(text), dtype)
        for start in range(0, len(text), PIECE):
            piece = slice(start, start + PIECE)
            tokens[piece] = token_of[code_points(text[piece])]
        return torch.from_numpy(tokens)

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.content[token] for token in tokens)

    def token_bytes(self) -> list[int]:
        """UTF-8 bytes per token, with which losses of different tokenizers are comparable."""
        return [len(character.encode()) for character in self.content]


class ByteTokenizer:
    """One token per UTF-8 byte: no training, no unknown characters."""

    def __init__(self, content: str = "") -> None:
        self.content = content
        self.vocab_size = 256

    @classmethod
    def train(cls, text: str, train_text: str, vocab_size: int) -> "ByteTokenizer":
        return cls()

    def encode(self, text: str) -> Tensor:
        content = bytearray(text.encode(errors="replace"))
        return torch.from_numpy(numpy.frombuffer(content, numpy.uint8))

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode(errors="replace")

    def token_bytes(self) -> list[int]:
        return [1] * 256


class BPETokenizer:
    """Byte-level BPE like GPT-2's; ``content`` is the JSON of ``tokenizers``."""

    def __init__(self, content: str) -> None:
        import tokenizers  # only for the runs that use it

        self.content = content
        self.pairs = tokenizers.Tokenizer.from_str(content)
        self.vocab_size = self.pairs.get_vocab_size()

    @classmethod
    def train(cls, text: str, train_text: str, vocab_size: int) -> "BPETokenizer":
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        alphabet = pre_tokenizers.ByteLevel.alphabet()
        if vocab_size < len(alphabet):
            raise ConfigError(
                f"data.bpe_vocab_size={vocab_size} should be at least {len(alphabet)}: every byte "
                "is a token"
            )
        pairs = Tokenizer(models.BPE())
        pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        pairs.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False
        )
        pairs.train_from_iterator([train_text], trainer)
        return cls(pairs.to_str())

    def encode(self, text: str) -> Tensor:
        return torch.tensor(self.pairs.encode(text).ids, dtype=torch.int32)

    def decode(self, tokens: Sequence[int]) -> str:
        return self.pairs.decode(list(tokens))

    def token_bytes(self) -> list[int]:
        # in the vocabulary, a token is written with one character per byte
        spelling = {token: text for text, token in self.pairs.get_vocab().items()}
        return [len(spelling[token]) for token in range(self.vocab_size)]


TOKENIZERS: dict[str, Any] = {"char": CharTokenizer, "byte": ByteTokenizer, "bpe": BPETokenizer}
