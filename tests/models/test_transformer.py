"""The Transformer sees the past alone, distances alone, and the same with a cache as without."""

import math

import pytest
import torch
from torch.nn import functional as F

from models.positions import rotary_table, rotate
from models.transformer import Transformer

POSITIONS = ("rotary", "alibi")


def small(positions="rotary", dropout=0.0, tie_weights=True):
    torch.manual_seed(0)
    model = Transformer(50, 32, 2, 4, 32, dropout, positions, tie_weights)
    for parameter in model.parameters():  # away from the start, where attention hardly matters
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def tokens(*shape):
    return torch.randint(50, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("positions", POSITIONS)
def test_no_future_token_leaks(positions):
    model, text = small(positions), tokens(2, 32)
    logits, _ = model(text)
    for place in (1, 17, 31):
        changed = text.clone()
        changed[:, place:] = (changed[:, place:] + 7) % 50
        other, _ = model(changed)
        assert torch.equal(other[:, :place], logits[:, :place])
        assert not torch.allclose(other[:, place:], logits[:, place:])


def test_rotary_products_depend_on_the_distance_alone():
    table = rotary_table(64, 16)
    query, key = torch.randn(2, 1, 16)
    queries = rotate(query.expand(64, 16), table)
    keys = rotate(key.expand(64, 16), table)
    products = queries @ keys.T
    for distance in (-5, 0, 9):
        along = products.diagonal(distance)
        assert torch.allclose(along, along[:1].expand_as(along), atol=1e-4)
    assert products.diagonal(0)[0] != pytest.approx(products.diagonal(9)[0].item(), abs=1e-2)
    assert torch.allclose(queries.norm(dim=1), query.norm().expand(64), atol=1e-4)


@pytest.mark.parametrize("positions", POSITIONS)
def test_attention_is_a_softmax_over_the_past(positions):
    model = small(positions)
    block, x = model.blocks[0].attention, torch.randn(2, 9, 32)
    table = None if model.table is None else model.table[:, :9]
    got = block(x, table, model.mask(0, 9))
    queries, keys, values = (
        part.view(2, 9, 4, 8).transpose(1, 2) for part in block.qkv(x).chunk(3, -1)
    )
    if table is not None:
        queries, keys = rotate(queries, table), rotate(keys, table)
    scores = queries @ keys.transpose(2, 3) / math.sqrt(8)
    distance = torch.arange(9)[:, None] - torch.arange(9)
    if positions == "alibi":
        slopes = torch.tensor([2**-2, 2**-4, 2**-6, 2**-8])
        scores = scores - slopes[:, None, None] * distance
    weights = scores.masked_fill(distance < 0, float("-inf")).softmax(-1)
    expected = block.out_proj((weights @ values).transpose(1, 2).reshape(2, 9, 32))
    assert torch.allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("pieces", [[32], [1] * 32, [5, 1, 1, 10, 15]])
def test_the_cache_changes_nothing(positions, pieces):
    model, text = small(positions), tokens(2, 32)
    expected, _ = model(text)
    state = model.new_state(2)
    got = []
    for piece in text.split(pieces, 1):
        logits, state = model(piece, state)
        got.append(logits)
    assert torch.allclose(torch.cat(got, 1), expected, atol=1e-3)
    assert state.length == 32
    with pytest.raises(ValueError, match="33 tokens do not fit a context_length of 32"):
        model(text[:, :1], state)


@pytest.mark.parametrize("vocab_size", [65, 1000])
def test_the_first_loss_is_that_of_guessing(vocab_size):
    torch.manual_seed(0)
    model = Transformer(vocab_size, 64, 4, 4, 128)
    text = torch.randint(vocab_size, (8, 65))
    loss = F.cross_entropy(model(text[:, :-1])[0].flatten(0, 1), text[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(vocab_size), abs=0.1)


def test_tied_weights_are_one():
    tied, untied = small(), small(tie_weights=False)
    assert tied.head.weight is tied.embedding.weight
    count = [sum(p.numel() for p in model.parameters()) for model in (tied, untied)]
    assert count[1] - count[0] == 50 * 32


@pytest.mark.parametrize(
    "settings", [{"width": 30}, {"width": 12}, {"positions": "learned"}], ids=str
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Transformer(**{"vocab_size": 50, "context_length": 8, "num_layers": 1, "num_heads": 4,
                       "width": 32, **settings})  # fmt: skip
