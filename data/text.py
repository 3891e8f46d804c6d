"""Corpora for language models: Python's own documentation or a text file.

The text is split into training, validation and test parts, in this order. The tokenizer is trained
on the training part alone.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from core.errors import ConfigError
from core.schema import Count
from data.cache import cached_tensors
from data.splits import Splits, TensorSplit
from data.text_files import read_text
from data.tokenizer import TOKENIZERS
from data.windows import Blocks, Lanes, RandomWindows


@dataclass(frozen=True)
class TextSpec:
    """Properties of a corpus that models, objectives and predictions need.

    Model settings that are null in the config are filled from the attribute of the same name.

    Attributes:
        context_length: tokens per training sample.
        tokenizer_kind: a name in ``data.tokenizer.TOKENIZERS``.
        tokenizer_content: the serialized tokenizer, so that the spec alone can decode.
    """

    name: str
    vocab_size: int
    context_length: int
    tokenizer_kind: str
    tokenizer_content: str
    synthetic: bool = False

    kind: ClassVar[str] = "text"
    usual_model: ClassVar[str] = "transformer"  # name in conf/model to suggest for such data

    @cached_property
    def tokenizer(self) -> Any:
        return TOKENIZERS[self.tokenizer_kind](self.tokenizer_content)

    def encode(self, text: str) -> list[int]:
        """Token ids; raises ConfigError if ``text`` has characters without a token."""
        return self.tokenizer.encode(text).tolist()

    def decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(tokens)

    def example(self, count: int) -> Tensor:
        """Token ids in the shape of a prepared batch, to try a model on."""
        return torch.zeros(count, self.context_length, dtype=torch.long)


def corpus(
    path: str | None,
    root: str,
    context_length: Count,
    tokenizer: str,
    bpe_vocab_size: int,
    val_fraction: float,
    test_fraction: float,
    lanes: int | None,
) -> Splits:
    """A text corpus, resident as tokens.

    Args:
        path: a UTF-8 text file; null: the language reference that ``help()`` shows.
        root: folder in which the tokens are cached.
        val_fraction, test_fraction: share of the text; 0: no such split.
        lanes: null: shuffled windows; else see :class:`data.windows.Lanes`.

    Raises:
        ConfigError: if the file is missing, empty, not UTF-8 text, or shorter than a window, or a
            setting is wrong.
    """
    if tokenizer not in TOKENIZERS:
        raise ConfigError(f"data.tokenizer={tokenizer} should be one of {', '.join(TOKENIZERS)}")
    fractions = (val_fraction, test_fraction)
    if min(fractions) < 0 or sum(fractions) >= 1:
        raise ConfigError(
            f"data.val_fraction={val_fraction} and data.test_fraction={test_fraction} should be 0 "
            "or more, and leave something to train on"
        )
    if path is None:
        name, text = "python_docs", python_docs()
    else:
        name, text = Path(path).stem, read_text(Path(path), f"data.path={path}")
    if not text.strip():
        raise ConfigError(f"data.path={path} is empty")
    cache = Path(root) / f"{name}-{tokenizer}.pt"
    content, parts = tokenized(text, tokenizer, bpe_vocab_size, fractions, cache)
    train, *held_out = parts
    if len(train) <= context_length:
        raise ConfigError(
            f"the text {name} has {len(train)} training tokens, too few for a window of "
            f"data.context_length={context_length}"
        )
    windows: TensorSplit = RandomWindows(train, context_length)
    if lanes is not None:
        windows = Lanes(train, context_length, lanes)
    val, test = (evaluation_split(part, context_length, lanes) for part in held_out)
    vocab_size = TOKENIZERS[tokenizer](content).vocab_size
    return Splits(
        windows, val, test, TextSpec(name, vocab_size, context_length, tokenizer, content)
    )


def python_docs() -> str:
    """465,000 characters of English text that come with Python."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def evaluation_split(tokens: Tensor, context_length: int, lanes: int | None) -> Blocks | None:
    """Blocks of ``context_length`` tokens, or one per lane; None if there is no target."""
    num_targets = len(tokens) - 1
    if num_targets < 1:
        return None
    return Blocks(tokens, context_length if lanes is None else -(-num_targets // lanes))


def tokenized(
    text: str, tokenizer: str, vocab_size: int, fractions: tuple[float, float], cache: Path
) -> tuple[str, list[Tensor]]:
    """The serialized tokenizer and the tokens of the three parts, cached in ``cache``."""
    train_end = int(len(text) * (1 - sum(fractions)))
    val_end = len(text) - int(len(text) * fractions[1])
    bounds = (0, train_end, val_end, len(text))

    def make() -> tuple[Tensor, ...]:
        kind = TOKENIZERS[tokenizer].train(text, text[:train_end], vocab_size)
        dtype = torch.uint8 if kind.vocab_size <= 256 else torch.int32
        content = torch.tensor(list(kind.content.encode()), dtype=torch.uint8)
        parts = [text[low:high] for low, high in pairwise(bounds)]
        return content, *(kind.encode(part).to(dtype) for part in parts)

    key = (hashlib.blake2b(text.encode()).hexdigest(), tokenizer, vocab_size, bounds)
    content, *parts = cached_tensors(cache, repr(key), make)
    return bytes(content.tolist()).decode(), parts
