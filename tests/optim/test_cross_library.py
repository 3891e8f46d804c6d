"""Eight updates of an optimizer equal those of an independent implementation."""

import pytest
import torch
from torch import Tensor, nn

from optim.build import build_optimizer

TIMM = {"_target_": "optim.timm_optimizer.timm_optimizer", "lr": 0.01, "weight_decay": 0.1}
PACKAGE = {**TIMM, "_target_": "optim.pytorch_optimizer.pytorch_optimizer"}
ADAMW = {**TIMM, "_target_": "torch.optim.AdamW"}
DECOUPLED = {"weight_decouple": True}
SAME_ADOPT = {"weight_decay": 0.0, "betas": [0.9, 0.99], "eps": 1e-6}
SAME_LAMB = {"betas": [0.0, 0.999], "eps": 1e-6}
SAME_MARS = {"betas": [0.95, 0.99], "gamma": 0.025, "optimize_1d": True}

# name: settings of two implementations, equalized where their defaults differ
PAIRS = {
    # timm clips at (step - 1) ** clip_exp, pytorch_optimizer at a function of step; without weight
    # decay, since only the latter decays at the first update
    "adopt": (
        {**TIMM, "name": "adopt", "clip_exp": 0.25, **SAME_ADOPT},
        {**PACKAGE, "name": "Adopt", "clip_lambda": lambda step: (step - 1) ** 0.25, **SAME_ADOPT},
    ),
    # timm has none; with alpha=0, without the slow momentum, it equals AdamW
    "ademamix": (
        {**PACKAGE, "name": "AdEMAMix", "alpha": 0.0, **DECOUPLED},
        ADAMW,
    ),
    # without momentum and bias correction: pytorch_optimizer corrects the first moment outside the
    # trust ratio and the second moment not at all
    "lamb": (
        {**TIMM, "name": "lamb", "bias_correction": False, "max_grad_norm": None, **SAME_LAMB},
        {**PACKAGE, "name": "Lamb", "weight_decouple": False, **SAME_LAMB},
    ),
    "lion": (
        {**TIMM, "name": "lion", "betas": [0.9, 0.99]},
        {**PACKAGE, "name": "Lion", "betas": [0.9, 0.99], **DECOUPLED},
    ),
    # alpha=1: the slow weights equal the fast ones
    "lookahead": (
        {
            "_target_": "optim.wrapped.lookahead",
            "lr": 0.01,
            "weight_decay": 0.1,
            "alpha": 1.0,
            "base_optimizer": {"_target_": "torch.optim.AdamW", "_partial_": True},
        },
        ADAMW,
    ),
    "mars": (
        {**TIMM, "name": "mars", **SAME_MARS},
        {**PACKAGE, "name": "MARS", **SAME_MARS, **DECOUPLED},
    ),
    # Lion with equal betas is Signum
    "signum": (
        {**PACKAGE, "name": "SignSGD", "momentum": 0.9, **DECOUPLED},
        {**TIMM, "name": "lion", "betas": [0.9, 0.9]},
    ),
}


def updated_weights(settings: dict, num_steps: int = 8) -> Tensor:
    torch.manual_seed(0)
    model = nn.Linear(5, 4)
    grouping = {"decay_norms_and_biases": True, "layer_decay": None}
    optimizer = build_optimizer(settings, model, grouping)
    generator = torch.Generator().manual_seed(1)
    for _ in range(num_steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("name", PAIRS)
def test_implementations_agree(name):
    first, second = PAIRS[name]
    weights = updated_weights(first)
    torch.testing.assert_close(weights, updated_weights(second), rtol=1e-5, atol=1e-6)
    assert (weights - updated_weights(first, num_steps=0)).abs().max() > 0.01
