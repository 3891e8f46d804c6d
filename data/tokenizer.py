"""Text to token ids and back. A tokenizer is its ``content``, a text that a spec can carry.

Add one as a class with the same methods and name it in ``TOKENIZERS``. ``train`` gets the whole
text, the part that may be learned from, and the number of tokens wanted; ``Tokenizer(content)``
builds it again anywhere. ``is_per_character``: a text may be encoded piece by piece.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core.errors import ConfigError


class CharTokenizer:
    """A token per character; ``content`` is all characters in order of their code."""

    is_per_character = True

    def __init__(self, content: str) -> None:
        self.content = content
        self.vocab_size = len(content)

    @classmethod
    def train(cls, text: str, train_text: str, vocab_size: int) -> "CharTokenizer":
        # of the whole text: which characters exist is nothing to overfit to, and one that only
        # the validation split has must have a token
        return cls("".join(sorted(set(text))))

    def encode(self, text: str) -> Tensor:
        """The tokens of ``text``, int64 ``(T,)``.

        Raises:
            ConfigError: ``text`` has characters without a token.
        """
        token_of = {character: token for token, character in enumerate(self.content)}
        unknown = sorted(set(text) - token_of.keys())
        if unknown:
            raise ConfigError(
                f"characters that the model has no token for: {' '.join(map(repr, unknown))}"
            )
        return torch.tensor([token_of[character] for character in text], dtype=torch.long)

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.content[token] for token in tokens)

    def token_bytes(self) -> list[int]:
        """How many UTF-8 bytes each token stands for: makes losses of tokenizers comparable."""
        return [len(character.encode()) for character in self.content]


class ByteTokenizer:
    """A token per UTF-8 byte: no training, no unknown characters."""

    is_per_character = True

    def __init__(self, content: str = "") -> None:
        self.content = content
        self.vocab_size = 256

    @classmethod
    def train(cls, text: str, train_text: str, vocab_size: int) -> "ByteTokenizer":
        return cls()

    def encode(self, text: str) -> Tensor:
        return torch.tensor(list(text.encode(errors="replace")), dtype=torch.long)

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode(errors="replace")

    def token_bytes(self) -> list[int]:
        return [1] * 256


class BPETokenizer:
    """Byte-pair encoding over bytes (GPT-2's kind); ``content`` is the JSON of ``tokenizers``."""

    is_per_character = False

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
        return torch.tensor(self.pairs.encode(text).ids, dtype=torch.long)

    def decode(self, tokens: Sequence[int]) -> str:
        return self.pairs.decode(list(tokens))

    def token_bytes(self) -> list[int]:
        # a token is spelled with one character for each of its bytes
        spelling = {token: text for text, token in self.pairs.get_vocab().items()}
        return [len(spelling[token]) for token in range(self.vocab_size)]


TOKENIZERS: dict[str, Any] = {"char": CharTokenizer, "byte": ByteTokenizer, "bpe": BPETokenizer}
