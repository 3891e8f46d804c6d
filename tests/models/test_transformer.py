"""Language models are causal and can read in pieces; ViTs use positions."""

import pytest
import torch

from models.positions import rotary_table, rotate
from models.recurrent import RecurrentModel
from models.transformer import Transformer
from models.vit import VisionTransformer


def transformer(positions):
    return Transformer(50, 32, 2, 4, 32, 0.0, positions)


MODELS = {
    "rotary": lambda: transformer("rotary"),
    "alibi": lambda: transformer("alibi"),
    "lstm": lambda: RecurrentModel("lstm", 50, 2, 24),
    "gru": lambda: RecurrentModel("gru", 50, 2, 24),
}


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    model = MODELS[request.param]()
    for parameter in model.parameters():  # attention has little effect at initialization
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture
def text():
    return torch.randint(50, (2, 32), generator=torch.Generator().manual_seed(1))


def test_logits_do_not_depend_on_future_tokens(model, text):
    logits, _ = model(text)
    for position in (1, 17, 31):
        changed = text.clone()
        changed[:, position:] = (changed[:, position:] + 7) % 50
        other, _ = model(changed)
        assert torch.equal(other[:, :position], logits[:, :position])
        assert not torch.allclose(other[:, position:], logits[:, position:])


@pytest.mark.parametrize("pieces", [[1] * 32, [5, 1, 1, 10, 15]])
def test_reading_in_pieces_equals_one_pass(model, text, pieces):
    expected, _ = model(text)
    state, found = model.new_state(2), []
    for piece in text.split(pieces, 1):
        logits, state = model(piece, state)
        found.append(logits)
    assert torch.allclose(torch.cat(found, 1), expected, atol=1e-3)
    assert not torch.allclose(model(text[:, 7:])[0], expected[:, 7:], atol=1e-2)
    if isinstance(model, Transformer):
        assert state.length == 32
        with pytest.raises(ValueError, match="33 tokens do not fit a context_length of 32"):
            model(text[:, :1], state)


def test_rotary_products_depend_only_on_distance():
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


@pytest.mark.parametrize("make", [Transformer, RecurrentModel])
def test_tied_weights_are_the_same_tensor(make):
    first = {"cell": "lstm"} if make is RecurrentModel else {"context_length": 8, "num_heads": 2}
    tied, untied = (
        make(vocab_size=50, num_layers=1, width=16, tie_weights=tie, **first)
        for tie in (True, False)
    )
    assert tied.head.weight is tied.embedding.weight
    assert untied.head.weight is not untied.embedding.weight


def test_lstm_forget_gate_bias_starts_at_1():
    biases = dict(RecurrentModel("lstm", 50, 1, 24).layers.named_parameters())
    assert (biases["bias_ih_l0"].detach()[24:48] == 1).all()  # forget gate


def test_only_positions_make_a_vit_order_dependent():
    model = VisionTransformer(
        in_channels=1, num_classes=10, image_size=(8, 12), patch_size=4, width=16, depth=2,
        num_heads=2, dropout=0.0,
    ).eval()  # fmt: skip
    images = torch.randn(1, 1, 8, 12)
    swapped = torch.cat([images[:, :, 4:], images[:, :, :4]], 2)
    assert not torch.allclose(model(images), model(swapped), atol=1e-4)
    torch.nn.init.zeros_(model.positions)
    assert torch.allclose(model(images), model(swapped), atol=1e-5)
