"""The fast linear layer is torch's, result and gradients."""

import pytest
import torch

from models.linear import MIN_ROWS, Linear


@pytest.mark.parametrize("shape", [(MIN_ROWS, 24), (4, 40, 24), (3, 24)], ids=str)
@pytest.mark.parametrize("needs_input_gradient", [True, False])
def test_agrees_with_torch(shape, needs_input_gradient):
    torch.manual_seed(0)
    fast, plain = Linear(24, 17), torch.nn.Linear(24, 17, bias=False)
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(shape)
    grad = torch.randn(*shape[:-1], 17)
    results = []
    for layer in (fast, plain):
        own = x.clone().requires_grad_(needs_input_gradient)
        out = layer(own)
        out.backward(grad)
        results.append((out, layer.weight.grad, own.grad))
    for ours, theirs in zip(*results, strict=True):
        if theirs is None:
            assert ours is None
        else:
            assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_transposed_input_is_understood():
    layer, x = Linear(64, 8), torch.randn(64, 48).t()
    assert torch.allclose(layer(x), x @ layer.weight.t(), atol=1e-5)


def test_autocast_still_decides():
    with torch.autocast("cpu", torch.bfloat16):
        assert Linear(16, 8)(torch.randn(64, 16)).dtype is torch.bfloat16
