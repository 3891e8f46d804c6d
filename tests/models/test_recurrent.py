"""Recurrent nets: reading in pieces is reading at once."""

import math

import pytest
import torch
from torch.nn import functional as F

from models.recurrent import RecurrentModel


@pytest.fixture(params=["lstm", "gru"])
def model(request):
    torch.manual_seed(0)
    return RecurrentModel(request.param, 50, 2, 24)


def test_the_state_carries_the_past(model):
    text = torch.randint(50, (3, 20))
    whole, last = model(text)
    state, got = None, []
    for piece in text.split([7, 1, 12], 1):
        logits, state = model(piece, state)
        got.append(logits)
    assert torch.allclose(torch.cat(got, 1), whole, atol=1e-5)
    assert torch.allclose(state, last, atol=1e-5)
    assert state.shape == model.new_state(3).shape
    assert not torch.allclose(model(text[:, 7:])[0], whole[:, 7:], atol=1e-3)


def test_the_first_loss_is_that_of_guessing(model):
    text = torch.randint(50, (8, 65))
    loss = F.cross_entropy(model(text[:, :-1])[0].flatten(0, 1), text[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(50), abs=0.1)


def test_an_lstm_begins_by_remembering():
    biases = dict(RecurrentModel("lstm", 50, 1, 24).layers.named_parameters())
    forget = biases["bias_ih_l0"].detach()[24:48]
    assert (forget == 1).all()
    with pytest.raises(ValueError, match="cell=rnn must be one of lstm, gru"):
        RecurrentModel("rnn", 50, 1, 24)
