"""Autoregressive generation: a token at a time, each drawn from what the model expects next.

A model here maps ``(tokens, state)`` to ``(logits, state)``, with ``new_state(count)`` for a start:
a Transformer's state is its key-value cache, a recurrent net's its hidden state. One without
``new_state`` maps ``tokens`` to ``logits`` and reads the whole text again for every token.
"""

import math
from typing import Any

import torch
from torch import Tensor

from core.errors import ConfigError
from models.outputs import prediction_of

LEAST_TEMPERATURE = 1e-6  # logits divided by less may overflow; it is as good as none


@torch.no_grad()
def generate(
    model: Any,
    tokens: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    context_length: int | None = None,
) -> Tensor:
    """Continue ``tokens``.

    A Transformer that has filled its context goes on from the last half of it, so any length can be
    generated, and no position is used that training did not have. The same holds for a prompt
    longer than the context.

    Args:
        model: a language model.
        tokens: ``(N, T)`` prompts, at least one token each.
        temperature: below 1 prefers likely tokens, above 1 unlikely ones; 0 takes the likeliest.
        top_k: draw from so many likeliest tokens only.
        top_p: draw from the fewest tokens that have this probability together (arXiv:1904.09751).
        generator: of the random numbers, on the device of ``tokens``.
        context_length: see :func:`context_limit`.

    Returns:
        ``(N, T + max_new_tokens)``: prompt and continuation.

    Raises:
        ConfigError: an empty prompt, or a setting out of range.
    """
    if tokens.shape[1] == 0:
        raise ConfigError("the prompt is empty: generation needs a token to start from")
    if max_new_tokens < 0:
        raise ConfigError(f"max_new_tokens={max_new_tokens} should be at least 0")
    if not 0 <= temperature < math.inf:
        raise ConfigError(f"temperature={temperature} should be at least 0 and finite")
    if top_k is not None and top_k < 1:
        raise ConfigError(f"top_k={top_k} should be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ConfigError(f"top_p={top_p} should be above 0 and at most 1")
    was_training = model.training
    model.eval()
    context_length = context_limit(model, context_length)
    state: Any = None
    read = 0  # tokens of the text that the state has seen
    begin = 0  # first token of the present context
    for _ in range(max_new_tokens):
        length = tokens.shape[1]
        if context_length is not None and length - begin > context_length:
            begin = length - max(context_length // 2, 1)
            state = None
        if not hasattr(model, "new_state"):
            logits = prediction_of(model(tokens[:, begin:]))
        else:
            if state is None:
                state, read = model.new_state(len(tokens)), begin
            logits, state = model(tokens[:, read:], state)
            read = length
        chosen = draw(logits[:, -1].float(), temperature, top_k, top_p, generator)
        tokens = torch.cat([tokens, chosen], 1)
    model.train(was_training)
    return tokens


def context_limit(model: Any, trained_length: int | None) -> int | None:
    """The most tokens that ``model`` reads together; None: any number, as a recurrent one.

    A foreign model that does not say it gets no more than it was trained on.
    """
    fallback = None if hasattr(model, "new_state") else trained_length
    return getattr(model, "context_length", fallback)


def draw(
    logits: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None,
) -> Tensor:
    """One token ``(N, 1)`` for each row of ``logits (N, vocab_size)``."""
    if temperature < LEAST_TEMPERATURE:
        return logits.argmax(-1, keepdim=True)
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    probabilities = logits.softmax(-1)
    if top_p is not None:
        ordered, tokens = probabilities.sort(-1, descending=True)
        # what is likelier than a token decides, so the likeliest one always stays
        beyond = ordered.cumsum(-1) - ordered >= top_p
        probabilities = probabilities.scatter(-1, tokens, ordered.masked_fill(beyond, 0.0))
    return torch.multinomial(probabilities, 1, generator=generator)
