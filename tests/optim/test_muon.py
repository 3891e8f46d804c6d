"""Muon: which parameters it updates, and agreement with its author's and torch's versions."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from core.errors import ConfigError
from core.instantiate import instantiate
from models.recurrent import RecurrentModel
from models.transformer import Transformer
from models.vit import VisionTransformer
from optim.build import build_optimizer
from optim.combined import MatricesAndRest
from optim.muon import COEFFICIENTS, newton_schulz
from optim.needs import Needs, rehearse
from optim.schedules import Evaluations
from optim.setting_schedule import SettingSchedule

GROUPING = {"decay_norms_and_biases": False, "layer_decay": None, "not_hidden": []}
MUON = {"_target_": "optim.muon.Muon", "lr": 0.01, "weight_decay": 0.1}


def transformer() -> Transformer:
    return Transformer(vocab_size=11, context_length=8, num_layers=1, num_heads=2, width=8)


def muon_parameters(model: nn.Module, **settings) -> set[str]:
    """Return the names of the parameters that Muon updates."""
    optimizer = build_optimizer({**MUON, **settings}, model, GROUPING)
    groups = [group for group in optimizer.param_groups if group["use_muon"]]
    ids = {id(parameter) for group in groups for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in ids}


ATTENTION = ("blocks.0.attention.qkv.weight", "blocks.0.attention.out_proj.weight")
HIDDEN = {  # case: model, names of its hidden matrices
    "transformer: no embedding or tied head": (
        transformer(),
        {*ATTENTION, "blocks.0.up_proj.weight", "blocks.0.down_proj.weight"},
    ),
    "ViT: no patch embedding, positions or classifier": (
        VisionTransformer(1, 10, (8, 8), 4, 8, depth=1, num_heads=2, dropout=0.0),
        {*ATTENTION, "blocks.0.mlp.0.weight", "blocks.0.mlp.2.weight"},
    ),
    "LSTM: input and recurrent weights": (
        RecurrentModel("lstm", vocab_size=7, num_layers=1, width=4),
        {"layers.weight_ih_l0", "layers.weight_hh_l0"},
    ),
    "no embedding between other layers": (
        nn.Sequential(nn.Conv2d(3, 8, 4), nn.Embedding(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)),
        {"2.weight"},
    ),
    "convolution kernels, but not depthwise": (
        nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1), nn.Linear(4, 2)
        ),
        {"2.weight"},
    ),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_muon_updates_only_hidden_matrices(case):
    model, hidden = HIDDEN[case]
    assert muon_parameters(model) == hidden


@pytest.mark.parametrize("name", ["nmuon", "adamuon"])
def test_timm_muons_update_same_parameters(name):
    settings = {"_target_": "optim.timm_optimizer.timm_optimizer", "name": name}
    assert muon_parameters(transformer(), **settings) == muon_parameters(transformer())


def test_not_hidden_parameters_are_left_to_adamw():
    grouping = {**GROUPING, "not_hidden": ["attention"]}
    optimizer = build_optimizer(MUON, transformer(), grouping)
    hidden = [p for group in optimizer.param_groups if group["use_muon"] for p in group["params"]]
    assert sorted(p.shape for p in hidden) == [(8, 32), (32, 8)]


@pytest.mark.parametrize("pattern", ["nothing_like_it", "("])
def test_invalid_not_hidden_pattern_is_rejected(pattern):
    with pytest.raises(ConfigError, match=r"param_groups\.not_hidden="):
        build_optimizer(MUON, transformer(), {**GROUPING, "not_hidden": [pattern]})


@pytest.mark.parametrize(
    ("optimizer", "hidden_layers"), [("muon", []), ("torch_muon", [nn.Conv2d(4, 4, 1)])]
)
def test_model_without_hidden_matrices_is_rejected(optimizer, hidden_layers, composed):
    settings = composed(f"optimizer={optimizer}")["optimizer"]
    model = nn.Sequential(nn.Conv2d(1, 4, 1), *hidden_layers, nn.Linear(4, 2))
    with pytest.raises(ConfigError, match=r"has no hidden matrices .*only optimizer=muon"):
        build_optimizer(settings, model, GROUPING)


def reference_update(gradient, momentum):
    """One update of Keller Jordan's reference code in fp32: the momentum, orthogonalized."""
    momentum.lerp_(gradient, 0.05)
    x = gradient.lerp(momentum, 0.95).reshape(len(gradient), -1)
    is_tall = x.shape[0] > x.shape[1]
    x = x.mT if is_tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    x = x.mT if is_tall else x
    return x.reshape(gradient.shape) * max(1, gradient.shape[-2] / gradient.shape[-1]) ** 0.5


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 4, 3, 3)])
def test_five_steps_equal_reference_muon_and_adamw(shape):
    torch.manual_seed(0)
    ours, rest = nn.Parameter(torch.randn(shape)), nn.Parameter(torch.randn(5))
    theirs, momentum = ours.detach().clone(), torch.zeros(shape)
    reference = nn.Parameter(rest.detach().clone())
    adamw = {"betas": [0.8, 0.9], "eps": 1e-8}
    groups = [{"params": [ours], "use_muon": True}, {"params": [rest], "use_muon": False}]
    settings = {**MUON, "scaling": "spectral", "adamw_lr": 0.02, **adamw}
    optimizer = instantiate(settings, "optimizer", params=groups)
    reference_optimizer = torch.optim.AdamW([reference], lr=0.02, weight_decay=0.1, **adamw)
    for _ in range(5):
        gradient = torch.randn(shape)
        ours.grad, rest.grad = gradient, torch.randn(5)
        reference.grad = rest.grad
        optimizer.step()
        reference_optimizer.step()
        theirs = theirs * (1 - 0.01 * 0.1) - 0.01 * reference_update(gradient, momentum)
        assert torch.allclose(ours, theirs, atol=1e-6)
        assert torch.equal(rest, reference)


def test_step_is_close_to_torch_muon():
    """torch's Muon orthogonalizes in bf16, so the updates differ by up to 3 %."""
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(12, 8))
    theirs = nn.Parameter(ours.detach().clone())
    before = ours.detach().clone()
    ours.grad = theirs.grad = torch.randn(12, 8)
    groups = [{"params": [ours], "use_muon": True}]
    settings = {**MUON, "scaling": "rms_match", "weight_decay": 0.0}
    instantiate(settings, "optimizer", params=groups).step()
    settings = {"lr": 0.01, "weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"}
    torch.optim.Muon([theirs], **settings).step()
    our_update, torch_update = ours - before, theirs - before
    assert (our_update - torch_update).norm() < 0.03 * torch_update.norm()


def test_torch_muon_equals_muon_and_adamw_of_torch(composed):
    """Muon updates the matrix, AdamW the rest, each with its own learning rate.

    Weights are bit-identical, also after reloading the state. A deep copy steps its own parameters.
    """
    settings = composed("optimizer=torch_muon", "optimizer.rest_lr=0.02")["optimizer"]
    layers = [nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 4), nn.Linear(4, 2)]
    torch.manual_seed(0)
    model = nn.Sequential(*layers)
    twin = copy.deepcopy(model)
    optimizer = build_optimizer(settings, model, {**GROUPING, "decay_norms_and_biases": True})
    matrix, others = twin[2].weight, [p for p in twin.parameters() if p is not twin[2].weight]
    decay = {"weight_decay": settings["weight_decay"]}
    muon = torch.optim.Muon([matrix], lr=settings["lr"], adjust_lr_fn="match_rms_adamw", **decay)
    adamw = torch.optim.AdamW(others, lr=0.02, betas=(0.9, 0.95), **decay)
    parameters = list(model.parameters())
    for step in range(4):
        for ours, theirs in zip(parameters, twin.parameters(), strict=True):
            ours.grad = theirs.grad = torch.randn(ours.shape)
        if step == 2:  # as when resuming from a checkpoint
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for group in (*optimizer.param_groups, *muon.param_groups, *adamw.param_groups):
            group["lr"] *= 0.5
        optimizer.step()
        muon.step()
        adamw.step()
        assert all(map(torch.equal, parameters, twin.parameters()))
    copied = copy.deepcopy(optimizer)
    copied_parameters = [p for group in copied.param_groups for p in group["params"]]
    before = [parameter.detach().clone() for parameter in copied_parameters]
    for parameter in copied_parameters:
        parameter.grad = torch.ones_like(parameter)
    copied.step()
    assert not any(map(torch.equal, copied_parameters, before))
    assert all(map(torch.equal, parameters, twin.parameters()))


class StringStateSGD(torch.optim.SGD):
    """Keeps strings in its state, which torch's ``load_state_dict`` garbles; it restores them."""

    def step(self, closure=None):
        super().step()
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["words"] = ("a", "b")

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["words"] = ("a", "b")


def test_each_part_loads_state_with_its_own_method():
    parts = {"matrices": partial(torch.optim.SGD, momentum=0.9), "rest": StringStateSGD}
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    groups = [{"params": [vector], "is_matrix": False}, {"params": [matrix], "is_matrix": True}]
    optimizer = MatricesAndRest(groups, **parts, lr=0.1)
    matrix.grad, vector.grad = torch.ones(2, 2), torch.ones(2)
    optimizer.step()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert optimizer.state[vector]["words"] == ("a", "b")
    assert optimizer.state[matrix]["momentum_buffer"].tolist() == [[1, 1], [1, 1]]
    optimizer.param_groups[0]["lr"] = 0.0
    before = vector.detach().clone()
    optimizer.step()
    assert torch.equal(vector, before)


@pytest.mark.parametrize("name", ["torch_muon", "muon"])
def test_lr_of_zero_keeps_the_other_lr(name, composed):
    """The trial steps accept it; ``layer_decay``, whose factors lr=0 would lose, is rejected."""
    key = "rest_lr" if name == "torch_muon" else "adamw_lr"
    settings = composed(f"optimizer={name}", "optimizer.lr=0", f"optimizer.{key}=0.02")["optimizer"]
    model = transformer()
    optimizer = build_optimizer(settings, model, GROUPING)
    assert {group["lr"] for group in optimizer.param_groups} == {0, 0.02}
    assert rehearse(settings, optimizer, "optimizer", model) == Needs()
    with pytest.raises(ConfigError, match=rf"lr=0 with optimizer\.{key} does not work"):
        build_optimizer(settings, model, {**GROUPING, "layer_decay": 0.5})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("optimizer.rest_lr=-1", r"optimizer\.rest_lr=-1 should be greater than or equal to 0"),
        ("optimizer.rest_lr=fast", r"optimizer\.rest_lr=fast should be a valid number"),
        ("+optimizer.rest.lr=3", r"optimizer\.rest\.lr has no effect: rest uses optimizer\.lr"),
        ("optimizer.matrices=null", "matrices=None should be an optimizer node"),
        ("optimizer.rest=adamw", "rest=adamw should be an optimizer node"),
        (
            "optimizer.rest._target_=optim.wrapped.lookahead ~optimizer.rest.betas "
            "+optimizer.rest.base_optimizer={_target_:torch.optim.SGD,_partial_:true}",
            "Lookahead wraps another optimizer",
        ),
    ],
)
def test_invalid_torch_muon_settings_are_rejected(overrides, message, composed):
    settings = composed("optimizer=torch_muon", *overrides.split())["optimizer"]
    with pytest.raises(ConfigError, match=message):
        build_optimizer(settings, transformer(), GROUPING)


def test_momentum_schedule_leaves_adamw_betas_unchanged(composed):
    settings = composed("optimizer=torch_muon")["optimizer"]
    optimizer = build_optimizer(settings, transformer(), GROUPING)
    setting = SettingSchedule(optimizer, "momentum", lambda step, base, evaluations: base / 2)
    setting.set(0, Evaluations())
    found = {(group.get("momentum"), group.get("betas")) for group in optimizer.param_groups}
    assert found == {(0.475, None), (None, (0.9, 0.95))}


@pytest.mark.parametrize(
    ("coefficients", "num_steps", "low", "high"),
    [("jordan", 5, 0.6, 1.3), ("polar_express", 5, 0.8, 1.2), ("polar_express", 8, 0.99, 1.01)],
)
def test_newton_schulz_brings_singular_values_near_one(coefficients, num_steps, low, high):
    """Jordan's coefficients stop at about 0.7 to 1.2 by design; Polar Express converges to 1."""
    torch.manual_seed(0)
    update = newton_schulz(torch.randn(16, 40), COEFFICIENTS[coefficients], num_steps)
    values = torch.linalg.svdvals(update)
    assert low < values.min()
    assert values.max() < high


def test_layer_decay_scales_lr_and_adamw_lr(composed):
    grouping = {**GROUPING, "layer_decay": 0.5}
    optimizer = build_optimizer({**MUON, "lr": 0.02, "adamw_lr": 3e-4}, transformer(), grouping)
    rates = {(group["use_muon"], round(group["lr"], 8)) for group in optimizer.param_groups}
    assert rates == {(False, 3e-4), (True, 0.01), (False, 1.5e-4), (False, 7.5e-5)}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("momentum", 1.0),
        ("ns_coefficients", "keller"),
        ("ns_steps", 0),
        ("scaling", "rms"),
        ("betas", [0.9]),
        ("adamw_lr", -1.0),
    ],
)
def test_invalid_muon_settings_are_rejected(key, value):
    with pytest.raises(ConfigError, match=rf"^optimizer\.{key}=.* should "):
        build_optimizer({**MUON, key: value}, transformer(), GROUPING)
