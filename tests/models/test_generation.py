"""Text generation: cached and uncached results are equal, sampling settings take effect."""

import pytest
import torch

from core.errors import ConfigError
from models.generation import draw, generate
from models.recurrent import RecurrentModel
from models.transformer import Transformer

PROMPT = torch.tensor([[3, 1, 4], [2, 7, 1]])


def transformer(positions="rotary"):
    torch.manual_seed(0)
    model = Transformer(20, 16, 2, 2, 16, positions=positions)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


MODELS = {
    "rotary": transformer,
    "alibi": lambda: transformer("alibi"),
    "lstm": lambda: RecurrentModel("lstm", 20, 2, 16),
    "gru": lambda: RecurrentModel("gru", 20, 1, 16),
}


def seeded():
    return torch.Generator().manual_seed(5)


@pytest.mark.parametrize("name", MODELS)
def test_cached_generation_equals_uncached(name):
    model, before = MODELS[name]().train(), torch.get_rng_state()
    # 40 tokens exceed the Transformer's context of 16
    text = generate(model, PROMPT, 40, generator=seeded())
    assert text.shape == (2, 43)
    assert torch.equal(text[:, :3], PROMPT)
    assert len(text.unique()) > 5
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training

    class Uncached(torch.nn.Module):
        """The same model without a cache: reads the whole context again for every token."""

        context_length = getattr(model, "context_length", None)

        def forward(self, tokens):
            return model.eval()(tokens)

    assert torch.equal(generate(Uncached(), PROMPT, 40, generator=seeded()), text)
    other = generate(model, PROMPT, 40, generator=torch.Generator().manual_seed(6))
    assert not torch.equal(other, text)


def test_long_prompt_is_truncated_to_half_the_context():
    """Its last 8 tokens are kept, which leaves room for new ones in the context of 16."""
    model = transformer()
    prompt = torch.randint(20, (1, 50))
    expected = generate(model, prompt[:, -8:], 6, temperature=0)
    assert torch.equal(generate(model, prompt, 6, temperature=0)[:, 50:], expected[:, 8:])


def test_temperature_0_takes_the_most_likely_token():
    model = transformer()
    text = generate(model, PROMPT, 5, temperature=0)
    logits, _ = model(text[:, :-1])
    assert torch.equal(logits[:, 2:].argmax(-1), text[:, 3:])


def draw_counts(logits, **settings):
    """Return how often each token is drawn in 4000 draws."""
    rows = torch.tensor(logits).expand(4000, -1)
    settings = {"temperature": 1.0, "top_k": None, "top_p": None, **settings}
    return draw(rows, generator=seeded(), **settings).flatten().bincount(minlength=len(logits))


def test_draws_follow_probabilities_and_temperature():
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    frequencies = draw_counts(probabilities.log().tolist()) / 4000
    assert torch.allclose(frequencies, probabilities, atol=0.03)
    sharper = draw_counts(probabilities.log().tolist(), temperature=0.5) / 4000
    assert torch.allclose(sharper, probabilities**2 / (probabilities**2).sum(), atol=0.03)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_k": 1}, 1),
        ({"top_k": 3}, 3),
        ({"top_k": 100}, 4),
        ({"top_p": 0.4}, 1),
        ({"top_p": 0.6}, 2),
        ({"top_p": 1.0}, 4),
        ({"top_k": 3, "top_p": 0.99}, 3),
    ],
    ids=str,
)
def test_top_k_and_top_p_keep_only_the_most_likely(settings, kept):
    counts = draw_counts(torch.tensor([0.5, 0.3, 0.15, 0.05]).log().tolist(), **settings)
    assert (counts > 0).tolist() == [True] * kept + [False] * (4 - kept)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("inf")),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("max_new_tokens", -1),
    ],
)
def test_invalid_generation_settings_are_rejected(name, value):
    with pytest.raises(ConfigError, match=f"{name}={value} should be"):
        generate(transformer(), PROMPT, **{"max_new_tokens": 1, name: value})


def test_empty_prompt_is_rejected():
    with pytest.raises(ConfigError, match="the prompt is empty"):
        generate(transformer(), PROMPT[:, :0], 1)


def test_model_without_state_reads_the_whole_text():
    class Bigrams(torch.nn.Module):
        def forward(self, tokens):
            return torch.nn.functional.one_hot((tokens + 1) % 5, 5).float()

    assert generate(Bigrams(), torch.tensor([[3]]), 4, temperature=0).tolist() == [[3, 4, 0, 1, 2]]
