"""Corpora for language models: Python's own documentation, or a text file of one's own.

The text is cut into training, validation and test part in this order, and the tokenizer learns from
the training part alone.
"""

import hashlib
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from core.errors import ConfigError
from data.cache import fingerprinted
from data.read_text import read_text
from data.splits import Splits, TensorSplit
from data.text_spec import TextSpec
from data.tokenizer import TOKENIZERS
from data.windows import Blocks, Lanes, RandomWindows


def python_docs(
    root: str,
    context_length: int,
    tokenizer: str,
    bpe_vocab_size: int,
    val_fraction: float,
    test_fraction: float,
    lanes: int | None,
) -> Splits:
    """The language reference that ``help()`` shows: 465,000 characters that Python carries."""
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))
    fractions = (val_fraction, test_fraction)
    return text_splits(
        "python_docs", text, root, context_length, tokenizer, bpe_vocab_size, fractions, lanes
    )


def text_file(
    path: str,
    root: str,
    context_length: int,
    tokenizer: str,
    bpe_vocab_size: int,
    val_fraction: float,
    test_fraction: float,
    lanes: int | None,
) -> Splits:
    """A UTF-8 text file.

    Raises:
        ConfigError: the file is missing, empty, no UTF-8 text, or shorter than a window.
    """
    text = read_text(Path(path), f"data.path={path}")
    if not text.strip():
        raise ConfigError(f"data.path={path} is empty")
    fractions = (val_fraction, test_fraction)
    name = Path(path).stem
    return text_splits(
        name, text, root, context_length, tokenizer, bpe_vocab_size, fractions, lanes
    )


def text_splits(
    name: str,
    text: str,
    root: str,
    context_length: int,
    tokenizer: str,
    bpe_vocab_size: int,
    fractions: tuple[float, float],
    lanes: int | None,
) -> Splits:
    """Splits of ``text``, resident as tokens.

    Args:
        root: where the tokens are kept for the next run.
        fractions: share of the validation and of the test part; a share of 0 is no split.
        lanes: null for shuffled windows, else see :class:`data.windows.Lanes`.
    """
    if tokenizer not in TOKENIZERS:
        raise ConfigError(f"data.tokenizer={tokenizer} should be one of {', '.join(TOKENIZERS)}")
    if context_length < 1:
        raise ConfigError(f"data.context_length={context_length} should be at least 1")
    if min(fractions) < 0 or sum(fractions) >= 1:
        raise ConfigError(
            f"data.val_fraction={fractions[0]} and data.test_fraction={fractions[1]} should be 0 "
            "or more, and leave something to train on"
        )
    content, parts = tokenized(name, text, root, tokenizer, bpe_vocab_size, fractions)
    kind = TOKENIZERS[tokenizer](content)  # type: ignore[call-arg]
    spec = TextSpec(name, kind.vocab_size, context_length, tokenizer, content)
    tokens, *held_out = parts
    if len(tokens) <= context_length:
        raise ConfigError(
            f"the text {name} has {len(tokens)} training tokens, too few for a window of "
            f"data.context_length={context_length}"
        )
    train: TensorSplit = RandomWindows(tokens, context_length)
    if lanes is not None:
        train = Lanes(tokens, context_length, lanes)
    val, test = (evaluation_split(part, context_length, lanes) for part in held_out)
    return Splits(train, val, test, spec)


def evaluation_split(tokens: Tensor, context_length: int, lanes: int | None) -> Blocks | None:
    """Blocks of the context's length, or a block for every lane; None without a target."""
    num_targets = len(tokens) - 1
    if num_targets < 1:
        return None
    return Blocks(tokens, context_length if lanes is None else -(-num_targets // lanes))


def tokenized(
    name: str,
    text: str,
    root: str,
    tokenizer: str,
    vocab_size: int,
    fractions: tuple[float, float],
) -> tuple[str, list[Tensor]]:
    """The tokenizer's content, and the tokens of the three parts; kept under ``root``."""
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
    cache = Path(root) / f"{name}-{tokenizer}.pt"
    content, *parts = fingerprinted(cache, repr(key), make)
    return bytes(content.tolist()).decode(), parts
