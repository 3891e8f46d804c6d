"""Every optimizer option: the loss falls, the state survives a checkpoint, groups are respected."""

import io
from pathlib import Path

import pytest
import torch
from torch import nn

from core.errors import ConfigError
from optim.build import build_optimizer
from optim.param_groups import parameter_groups

CONF = Path(__file__).parents[2] / "conf" / "optimizer"
NAMES = sorted(file.stem for file in CONF.glob("*.yaml"))
GROUPING = {"decay_norms_and_biases": False, "layer_decay": None}


@pytest.fixture(params=NAMES)
def settings(request, composed) -> dict:
    """An optimizer's settings, as they are composed."""
    extra = ["optimizer.name=adopt"] if request.param == "timm" else []
    return composed(f"optimizer={request.param}", *extra)["optimizer"]


@pytest.fixture
def settings_of(composed):
    extra = {"timm": ["optimizer.name=adopt"]}
    return lambda name: composed(f"optimizer={name}", *extra.get(name, []))["optimizer"]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)
    )


def train(model: nn.Module, optimizer, steps: int) -> list[float]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(32, 1, 8, 8, generator=generator)
    labels = torch.randint(0, 3, (32,), generator=generator)
    losses = []
    switch = getattr(optimizer, "train", None)
    if switch is not None:
        switch()
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_loss_falls(settings):
    model = network()
    losses = train(model, build_optimizer(settings, model, GROUPING), 150)
    assert losses[-1] < 0.6 * losses[0]


def test_state_round_trip_is_exact(settings):
    """A checkpoint in the middle, read back as data alone, changes nothing."""
    model = network()
    optimizer = build_optimizer(settings, model, GROUPING)
    train(model, optimizer, 5)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    content = torch.load(file, weights_only=True)

    train(model, optimizer, 5)
    twin = network()
    twin_optimizer = build_optimizer(settings, twin, GROUPING)
    twin.load_state_dict(content["model"])
    twin_optimizer.load_state_dict(content["optimizer"])
    train(twin, twin_optimizer, 5)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_unknown_setting_is_refused_by_name(settings):
    """With the nearest name; what timm's factory takes is for the optimizer that it makes."""
    hint = "" if "name" in settings else r": .* did you mean optimizer\.lr\?"
    with pytest.raises(ConfigError, match=rf"optimizer.*lrr{hint}"):
        build_optimizer({**settings, "lrr": 1.0}, network(), GROUPING)


def test_unknown_timm_optimizer_names_the_nearest(settings_of):
    with pytest.raises(ConfigError, match="adopt"):
        build_optimizer({**settings_of("timm"), "name": "adoptt"}, network(), GROUPING)


def test_timm_refuses_what_its_optimizer_lacks(settings_of):
    with pytest.raises(ConfigError, match="nesterovv"):
        build_optimizer({**settings_of("timm"), "nesterovv": True}, network(), GROUPING)


def test_norms_and_biases_are_not_decayed():
    model = network()
    decayed, undecayed = parameter_groups(model, 0.1, 1.0, **GROUPING)
    assert decayed["weight_decay"] == 0.1
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert undecayed["weight_decay"] == 0.0
    assert all(p.ndim == 1 for p in undecayed["params"])
    assert len(decayed["params"]) + len(undecayed["params"]) == len(list(model.parameters()))


def test_everything_is_decayed_on_request():
    (group,) = parameter_groups(network(), 0.1, 1.0, decay_norms_and_biases=True, layer_decay=None)
    assert len(group["params"]) == len(list(network().parameters()))


def test_frozen_parameters_are_left_out(settings_of):
    model = network()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ConfigError, match="no trainable parameters"):
        build_optimizer(settings_of("sgd"), model, GROUPING)


def test_muon_takes_matrices_only(settings_of):
    """What is not a matrix is AdamW's: its state has two moments."""
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(64, 8))
    optimizer = build_optimizer(settings_of("muon"), model, GROUPING)
    model(torch.randn(4, 8, 4, 4)).square().sum().backward()
    optimizer.step()
    for parameter in model.parameters():
        has_second_moment = "exp_avg_sq" in optimizer.state[parameter]
        assert has_second_moment == (parameter.ndim < 2)


@pytest.mark.parametrize(("key", "value"), [("lr", -1.0), ("lr", "abc"), ("weight_decay", -0.1)])
def test_impossible_values_are_refused(key, value, settings_of):
    with pytest.raises(ConfigError, match=rf"optimizer\.{key}"):
        build_optimizer({**settings_of("adamw"), key: value}, network(), GROUPING)
