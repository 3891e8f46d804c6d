"""Every optimizer option: the loss falls, the state survives a checkpoint, groups are respected."""

import io
import math
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from core.errors import ConfigError
from data.draws import seeded_rng
from optim.build import build_optimizer
from optim.needs import Needs, add_gradients, generator_states, rehearse
from trainer.checkpoint.optimizer_state import OptimizerState

CONF = Path(__file__).parents[2] / "conf" / "optimizer"
NAMES = sorted(file.stem for file in CONF.glob("*.yaml"))
GROUPING = {"decay_norms_and_biases": False, "layer_decay": None}
TIMM = "optim.timm_optimizer.timm_optimizer"
PACKAGE = "optim.pytorch_optimizer.pytorch_optimizer"
ADAMW = {"_target_": "torch.optim.AdamW", "lr": 0.1, "weight_decay": 0.01}


@pytest.fixture
def settings_of(composed):
    """An optimizer's settings, as they are composed."""
    extra = {
        "timm": ["optimizer.name=adopt"],
        "pytorch_optimizer": ["optimizer.name=AdaPNM", "optimizer.lr=0.02"],
    }
    return lambda name: composed(f"optimizer={name}", *extra.get(name, []))["optimizer"]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, 32),
        nn.ReLU(),
        nn.Linear(32, 3),
    )


def train(model: nn.Module, optimizer, needs: Needs, steps: int) -> list[float]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(32, 1, 8, 8, generator=generator)
    labels = torch.randint(0, 3, (32,), generator=generator)
    parameters = list(model.parameters())
    if hasattr(optimizer, "train"):
        optimizer.train()

    def closure() -> Tensor:
        with torch.enable_grad():
            loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        add_gradients(loss, parameters, needs.graph)
        return loss

    losses = []
    for step in range(steps):
        losses.append(closure().item())
        with seeded_rng(torch.device("cpu"), step):
            optimizer.step(*[closure] * needs.closure)
    return losses


def build(settings: dict, model: nn.Module) -> tuple[Any, Needs, OptimizerState]:
    optimizer = build_optimizer(settings, model, GROUPING)
    needs = rehearse(settings, optimizer, "optimizer", model)
    return optimizer, needs, OptimizerState(optimizer, model)


@pytest.mark.parametrize("name", NAMES)
def test_option(name, settings_of):
    """The loss falls; a checkpoint in the middle, read back as data alone, changes nothing."""
    if name == "kron":
        pytest.importorskip("opt_einsum")
    settings = settings_of(name)
    model = network()
    optimizer, needs, state = build(settings, model)
    first, *_ = train(model, optimizer, needs, 5)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": state.state_dict()}, file)
    file.seek(0)
    content = torch.load(file, weights_only=True)

    train(model, optimizer, needs, 5)
    twin = network()
    twin_optimizer, _, twin_state = build(settings, twin)
    twin.load_state_dict(content["model"])
    twin_state.load_state_dict(content["optimizer"])
    train(twin, twin_optimizer, needs, 5)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)

    assert train(model, optimizer, needs, 140)[-1] < 0.6 * first
    # what a library's factory takes is for the optimizer that it makes
    hint = "" if "name" in settings else r": .* did you mean optimizer\.lr\?"
    with pytest.raises(ConfigError, match=rf"optimizer.*lrr{hint}"):
        build_optimizer({**settings, "lrr": 1.0}, network(), GROUPING)


@pytest.mark.parametrize("library", ["timm", "pytorch_optimizer"])
def test_unknown_name_names_the_nearest(library, settings_of):
    with pytest.raises(ConfigError, match=f"{library} has no .* name; closest: .*adopt"):
        build_optimizer({**settings_of(library), "name": "adoptt"}, network(), GROUPING)


def test_what_a_pytorch_optimizer_does_not_have_is_refused():
    """Its own classes take any setting, and drop it."""

    def build_named(name: str, **settings):
        settings |= {"_target_": PACKAGE, "name": name}
        return build_optimizer({"lr": 0.1, "weight_decay": 0.0, **settings}, network(), GROUPING)

    with pytest.raises(ConfigError, match=r"optimizer.beta: SOAP .* did you mean betas"):
        build_named("SOAP", beta=0.5)
    assert type(build_named("Fromage")).__name__ == "Fromage"  # which knows no decay
    with pytest.raises(ConfigError, match=r"optimizer.weight_decay: Fromage has no such setting"):
        build_named("Fromage", weight_decay=0.1)
    with pytest.raises(ConfigError, match=r"optimizer.name=lomo cannot be used here"):
        build_named("lomo")


@pytest.mark.parametrize("setting", ["momentum", "eps", "layer_decay"])
def test_settings_that_a_timm_optimizer_does_not_have(setting):
    """timm's own factory takes them, and drops them without a word."""
    name = "sgd" if setting == "eps" else "adamw"
    settings = {"_target_": TIMM, "name": name, "lr": 0.1}
    with pytest.raises(ConfigError, match=f"unexpected keyword argument '{setting}'"):
        build_optimizer({**settings, setting: 0.5}, network(), GROUPING)


def test_frozen_parameters_are_left_out():
    with pytest.raises(ConfigError, match="no trainable parameters"):
        build_optimizer(ADAMW, network().requires_grad_(False), GROUPING)


@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", -1.0), ("lr", "abc"), ("lr", math.nan), ("lr", math.inf), ("weight_decay", -0.1)],
)
def test_impossible_values_are_refused(key, value):
    with pytest.raises(ConfigError, match=rf"optimizer\.{key}"):
        build_optimizer({**ADAMW, key: value}, network(), GROUPING)


@pytest.mark.parametrize(
    ("settings", "needs"),
    [
        ({"_target_": "torch.optim.Adam"}, Needs()),
        ({"_target_": "torch.optim.LBFGS"}, Needs(closure=True, flat=True)),
        ({"_target_": TIMM, "name": "adahessian"}, Needs(graph=True)),
        ({"_target_": PACKAGE, "name": "SophiaH"}, Needs(graph=True, draws=True)),
        ({"_target_": PACKAGE, "name": "dash"}, Needs(draws=True)),
    ],
)
def test_what_an_optimizer_needs_is_found_by_trying(settings, needs):
    assert build({**settings, "lr": 0.1}, network())[1] == needs


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"_target_": "torch.optim.SparseAdam"}, "dense gradients"),
        ({"_target_": PACKAGE, "name": "spectralsphere"}, "only supports 2D parameters"),
    ],
)
def test_what_no_update_can_drive_is_refused(settings, cause):
    with pytest.raises(ConfigError, match=f"optimizer: .* cannot be used here.*{cause}"):
        build({**settings, "lr": 0.1}, network())


DEPTHWISE = nn.Conv2d(4, 4, 3, groups=4, bias=False)  # of one channel: in both memory formats


class Flattening(torch.optim.SGD):
    """Views weights as matrices, as public ones do; says nothing of what it cannot view."""

    def step(self, closure=None):
        for parameter in (p for group in self.param_groups for p in group["params"]):
            if parameter.ndim < 2:
                raise AssertionError
            parameter.view(len(parameter), -1)
        return super().step(closure)


@pytest.mark.parametrize(
    ("layer", "cause"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), DEPTHWISE), r"trainer\.channels_last=false"),
        (nn.Linear(3, 4), r"AssertionError at `raise AssertionError`, .*\.py:\d+$"),
    ],
)
def test_what_a_foreign_optimizer_stumbles_over_is_said(layer, cause, monkeypatch):
    """Before any training, in the memory format of the parameters."""
    monkeypatch.setenv("TRAIN_PACKAGES", "tests")
    settings = {"_target_": f"{__name__}.Flattening", "lr": 0.1}
    with pytest.raises(ConfigError, match=f"Flattening cannot be used here.*{cause}"):
        build(settings, layer.to(memory_format=torch.channels_last))


def test_gradients_are_flattened_for_those_that_view_them():
    """LBFGS beside weights in ``channels_last``, be there others of which that is not seen."""
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1))
    settings = {"_target_": "torch.optim.LBFGS", "lr": 1.0}
    _, needs, _ = build(settings, layers.to(memory_format=torch.channels_last))
    assert needs == Needs(closure=True, flat=True)


class Recent(deque):
    """What torch reads back from no file of data alone."""


class Keeping(torch.optim.SGD):
    """Its state is of a class of its own."""

    def step(self, closure=None):
        for parameter in (p for group in self.param_groups for p in group["params"]):
            self.state[parameter]["recent"] = Recent([parameter.detach().clone()])


@pytest.mark.parametrize("is_kept", [True, False])
def test_state_that_no_checkpoint_holds_is_found_before_training(is_kept, train, monkeypatch):
    monkeypatch.setenv("TRAIN_PACKAGES", "tests")
    checkpoint = f"trainer.checkpoint={is_kept}".lower()
    run = partial(train, "debug=fast", f"optimizer._target_={__name__}.Keeping", checkpoint)
    if not is_kept:
        run()
        return
    with (
        patch("trainer.phase.Phase.backward", side_effect=AssertionError("it trains")),
        pytest.raises(ConfigError, match="checkpoint cannot hold the state of Keeping"),
    ):
        run()


@pytest.mark.parametrize("name", ["Prodigy", "DAdaptAdam"])
def test_rates_that_would_change_nothing_are_refused(name):
    """They read the first group's; others that wait before they move are not taken for such."""
    scaled = {**GROUPING, "rules": [{"match": "^0", "lr_scale": 0.1}]}
    for chosen in (name, "RAdam"):
        settings = {"_target_": PACKAGE, "name": chosen, "lr": 1.0, "weight_decay": 0.1}
        model = network()
        optimizer = build_optimizer(settings, model, scaled)
        if chosen == "RAdam":
            rehearse(settings, optimizer, "optimizer", model)
            continue
        with pytest.raises(ConfigError, match=f"optimizer: {name} has one learning rate for all"):
            rehearse(settings, optimizer, "optimizer", model)


class ByNameAndSize(torch.optim.Optimizer):
    """A group of each parameter, made by its name; a step for matrices of eight columns alone."""

    def __init__(self, params, lr):
        named = [
            pair
            for group in params
            for pair in zip(group["param_names"], group["params"], strict=True)
        ]
        super().__init__([{"params": [p], "name": name} for name, p in named], {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                is_bias = group["name"].endswith("bias")
                update = parameter.grad if is_bias else parameter.grad.view(-1, 8)
                parameter.add_(update.view_as(parameter), alpha=-group["lr"])


def test_optimizers_that_go_by_names_and_sizes(monkeypatch):
    """As Adam-mini does, which groups parameters itself and takes matrices apart by heads."""
    monkeypatch.setenv("TRAIN_PACKAGES", "tests")
    settings = {"_target_": f"{__name__}.ByNameAndSize", "lr": 0.1}
    assert build(settings, nn.Linear(8, 3))[1] == Needs()
    with pytest.raises(ConfigError, match="ByNameAndSize cannot be used here"):
        build(settings, nn.Linear(5, 3))


def test_an_optimizer_without_a_rate_is_refused():
    settings = {"_target_": PACKAGE, "name": "alig", "lr": 0.1}
    with pytest.raises(ConfigError, match="AliG has no learning rate"):
        build(settings, network())


def test_rehearsing_draws_nothing_from_the_run():
    model, before = network(), generator_states()
    build({"_target_": PACKAGE, "name": "dash", "lr": 0.1}, model)
    assert generator_states() == before


@pytest.mark.parametrize("name", ["lamb", "lars"])
def test_layers_are_adapted_whatever_their_decay(name):
    """Without decay a matrix steps by its own norm, at any scale of its gradient; a bias does not.

    timm's optimizers leave out what is not decayed, and so everything without a decay.
    """
    settings = {"_target_": TIMM, "name": name, "lr": 0.1}
    model = nn.Linear(5, 4)
    before = model.weight.detach().clone()
    optimizer = build_optimizer({**settings, "weight_decay": 0.0}, model, GROUPING)
    assert [group["always_adapt"] for group in optimizer.param_groups] == [True, False]
    for parameter in model.parameters():
        parameter.grad = torch.rand_like(parameter)
    optimizer.step()
    step = (model.weight.detach() - before).norm()
    trust = before.norm() if name == "lamb" else 0.001 * before.norm()
    assert step == pytest.approx(0.1 * float(trust), rel=1e-3)
