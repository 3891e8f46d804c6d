"""Autoregressive generation, one sampled token at a time.

A model maps ``(tokens, state)`` to ``(logits, state)``, and ``new_state(count)`` makes an empty
state: the key-value cache of a Transformer, the hidden state of a recurrent network. A model
without ``new_state`` maps ``tokens`` to ``logits`` and reads the whole context for every token.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from core.errors import ConfigError
from core.schema import Count, NonNegative, check_value
from models.outputs import prediction_of

MIN_TEMPERATURE = 1e-6  # lower ones count as 0: dividing logits by them may overflow


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

    When a Transformer's context is full, generation continues from its last half, so that any
    length can be generated without positions unseen in training. The same holds for a prompt
    longer than the context.

    Args:
        model: a language model.
        tokens: ``(N, T)`` prompts, at least one token each.
        temperature: below 1 prefers likely tokens, above 1 unlikely ones; 0 takes the likeliest.
        top_k: sample from this many of the likeliest tokens only.
        top_p: sample from the fewest tokens with this total probability (arXiv:1904.09751).
        generator: random generator on the device of ``tokens``.
        context_length: see :func:`context_limit`.

    Returns:
        ``(N, T + max_new_tokens)``: prompt and continuation.

    Raises:
        ConfigError: if the prompt is empty or a setting is out of range.
    """
    if tokens.shape[1] == 0:
        raise ConfigError("the prompt is empty: generation needs a token to start from")
    check_value(Annotated[int, Field(ge=0)], max_new_tokens, "max_new_tokens")
    check_value(NonNegative, temperature, "temperature")
    check_value(Count | None, top_k, "top_k")
    check_value(Annotated[float, Field(gt=0, le=1)] | None, top_p, "top_p")
    was_training = model.training
    model.eval()
    context_length = context_limit(model, context_length)
    state: Any = None
    read = 0  # number of tokens that the state has seen
    begin = 0  # first token of the current context
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
    """Maximum number of tokens that ``model`` reads at once; None: unlimited (recurrent models).

    A custom model without ``context_length`` is limited to its length in training.
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
    """Sample one token ``(N, 1)`` for each row of ``logits (N, vocab_size)``."""
    if temperature < MIN_TEMPERATURE:
        return logits.argmax(-1, keepdim=True)
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        threshold = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, float("-inf"))
    probabilities = logits.softmax(-1)
    if top_p is not None:
        ordered, tokens = probabilities.sort(-1, descending=True)
        # the probability of all likelier tokens decides, so the likeliest one always stays
        beyond = ordered.cumsum(-1) - ordered >= top_p
        probabilities = probabilities.scatter(-1, tokens, ordered.masked_fill(beyond, 0.0))
    return torch.multinomial(probabilities, 1, generator=generator)
