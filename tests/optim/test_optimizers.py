"""Every ``optimizer=`` option: the loss falls, checkpoints resume, bad settings are rejected."""

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
    """Return a function that composes the settings of an ``optimizer=`` option."""
    required = {
        "timm": ["optimizer.name=adopt"],
        "pytorch_optimizer": ["optimizer.name=AdaPNM", "optimizer.lr=0.02"],
    }

    def settings(name: str) -> dict:
        if name == "kron":
            pytest.importorskip("opt_einsum")
        return composed(f"optimizer={name}", *required.get(name, []))["optimizer"]

    return settings


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


def take_steps(model: nn.Module, optimizer, needs: Needs, num_steps: int) -> list[float]:
    """Train on one batch and return the loss before each update."""
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
    for step in range(num_steps):
        losses.append(closure().item())
        with seeded_rng(torch.device("cpu"), step):
            optimizer.step(*[closure] * needs.closure)
    return losses


def build(settings: dict, model: nn.Module) -> tuple[Any, Needs, OptimizerState]:
    optimizer = build_optimizer(settings, model, GROUPING)
    needs = rehearse(settings, optimizer, "optimizer", model)
    return optimizer, needs, OptimizerState(optimizer, model)


@pytest.mark.parametrize("name", NAMES)
def test_optimizer_trains_and_resumes_bit_identical(name, settings_of):
    """The loss falls, and a checkpoint after 5 of 10 updates changes nothing.

    It is loaded with ``weights_only=True``.
    """
    settings = settings_of(name)
    model = network()
    optimizer, needs, state = build(settings, model)
    first, *_ = take_steps(model, optimizer, needs, 5)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": state.state_dict()}, file)
    file.seek(0)
    content = torch.load(file, weights_only=True)

    take_steps(model, optimizer, needs, 5)
    twin = network()
    twin_optimizer, _, twin_state = build(settings, twin)
    twin.load_state_dict(content["model"])
    twin_state.load_state_dict(content["optimizer"])
    take_steps(twin, twin_optimizer, needs, 5)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)

    assert take_steps(model, optimizer, needs, 140)[-1] < 0.6 * first


@pytest.mark.parametrize("name", NAMES)
def test_unknown_setting_is_rejected(name, settings_of):
    settings = settings_of(name)
    # the factories of timm and pytorch_optimizer take any setting, so there is no suggestion
    hint = "" if "name" in settings else r": .* did you mean optimizer\.lr\?"
    with pytest.raises(ConfigError, match=rf"optimizer.*lrr{hint}"):
        build_optimizer({**settings, "lrr": 1.0}, network(), GROUPING)


@pytest.mark.parametrize("library", ["timm", "pytorch_optimizer"])
def test_unknown_optimizer_name_suggests_closest(library, settings_of):
    with pytest.raises(ConfigError, match=f"{library} has no .* name; closest: .*adopt"):
        build_optimizer({**settings_of(library), "name": "adoptt"}, network(), GROUPING)


def test_unsupported_pytorch_optimizer_settings_are_rejected():
    """The package's classes accept unknown settings and silently ignore them."""

    def build_named(name: str, **settings):
        settings |= {"_target_": PACKAGE, "name": name}
        return build_optimizer({"lr": 0.1, "weight_decay": 0.0, **settings}, network(), GROUPING)

    with pytest.raises(ConfigError, match=r"optimizer.beta: SOAP .* did you mean betas"):
        build_named("SOAP", beta=0.5)
    # built with weight_decay=0.0, though it has no such setting
    assert type(build_named("Fromage")).__name__ == "Fromage"
    with pytest.raises(ConfigError, match=r"optimizer.weight_decay: Fromage has no such setting"):
        build_named("Fromage", weight_decay=0.1)
    with pytest.raises(ConfigError, match=r"optimizer.name=lomo cannot be used here"):
        build_named("lomo")


@pytest.mark.parametrize("setting", ["momentum", "eps", "layer_decay"])
def test_unsupported_timm_optimizer_settings_are_rejected(setting):
    """timm's own factory accepts these settings and silently ignores them."""
    name = "sgd" if setting == "eps" else "adamw"
    settings = {"_target_": TIMM, "name": name, "lr": 0.1}
    with pytest.raises(ConfigError, match=f"unexpected keyword argument '{setting}'"):
        build_optimizer({**settings, setting: 0.5}, network(), GROUPING)


def test_model_without_trainable_parameters_is_rejected():
    with pytest.raises(ConfigError, match="no trainable parameters"):
        build_optimizer(ADAMW, network().requires_grad_(False), GROUPING)


@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", -1.0), ("lr", "abc"), ("lr", math.nan), ("lr", math.inf), ("weight_decay", -0.1)],
)
def test_invalid_lr_or_weight_decay_is_rejected(key, value):
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
def test_trial_steps_find_what_an_optimizer_needs(settings, needs):
    assert build({**settings, "lr": 0.1}, network())[1] == needs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"_target_": "torch.optim.SparseAdam"}, "dense gradients"),
        ({"_target_": PACKAGE, "name": "spectralsphere"}, "only supports 2D parameters"),
    ],
)
def test_unsupported_optimizer_is_rejected(settings, message):
    with pytest.raises(ConfigError, match=f"optimizer: .* cannot be used here.*{message}"):
        build({**settings, "lr": 0.1}, network())


# its weight has one input channel, so it is contiguous in both memory formats
DEPTHWISE = nn.Conv2d(4, 4, 3, groups=4, bias=False)


class FlatteningSGD(torch.optim.SGD):
    """Views weights as matrices, like some public optimizers; its assertion has no message."""

    def step(self, closure=None):
        for parameter in (p for group in self.param_groups for p in group["params"]):
            if parameter.ndim < 2:
                raise AssertionError
            parameter.view(len(parameter), -1)
        return super().step(closure)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), DEPTHWISE), r"trainer\.channels_last=false"),
        (nn.Linear(3, 4), r"AssertionError at `raise AssertionError`, .*\.py:\d+$"),
    ],
)
def test_failed_trial_step_is_explained(layer, message, monkeypatch):
    """The message suggests a setting for a failed ``view`` and quotes the line of an assertion."""
    monkeypatch.setenv("TRAIN_PACKAGES", "tests")
    settings = {"_target_": f"{__name__}.FlatteningSGD", "lr": 0.1}
    with pytest.raises(ConfigError, match=f"FlatteningSGD cannot be used here.*{message}"):
        build(settings, layer.to(memory_format=torch.channels_last))


def test_lbfgs_with_channels_last_needs_flat_gradients():
    """The 1x1 kernel, contiguous in both memory formats, must not hide the 3x3 one."""
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1))
    settings = {"_target_": "torch.optim.LBFGS", "lr": 1.0}
    _, needs, _ = build(settings, layers.to(memory_format=torch.channels_last))
    assert needs == Needs(closure=True, flat=True)


class CustomDeque(deque):
    """A class that ``torch.load(weights_only=True)`` rejects."""


class UnsavableSGD(torch.optim.SGD):
    """Keeps an object of a custom class in its state."""

    def step(self, closure=None):
        for parameter in (p for group in self.param_groups for p in group["params"]):
            self.state[parameter]["recent"] = CustomDeque([parameter.detach().clone()])


@pytest.mark.parametrize("has_checkpoints", [True, False])
def test_unsavable_state_is_rejected_before_training(has_checkpoints, train, monkeypatch):
    """Without checkpoints, the same optimizer is accepted."""
    monkeypatch.setenv("TRAIN_PACKAGES", "tests")
    checkpoint = f"trainer.checkpoint={has_checkpoints}".lower()
    run = partial(train, "debug=fast", f"optimizer._target_={__name__}.UnsavableSGD", checkpoint)
    if not has_checkpoints:
        run()
        return
    with (
        patch("trainer.phase.Phase.backward", side_effect=AssertionError("training started")),
        pytest.raises(ConfigError, match="checkpoint cannot hold the state of UnsavableSGD"),
    ):
        run()


def rehearse_with_lr_scale(name: str) -> None:
    settings = {"_target_": PACKAGE, "name": name, "lr": 1.0, "weight_decay": 0.1}
    model = network()
    grouping = {**GROUPING, "rules": [{"match": "^0", "lr_scale": 0.1}]}
    optimizer = build_optimizer(settings, model, grouping)
    rehearse(settings, optimizer, "optimizer", model)


@pytest.mark.parametrize("name", ["Prodigy", "DAdaptAdam"])
def test_lr_scale_is_rejected_if_optimizer_ignores_it(name):
    """Both use the first group's learning rate for all groups."""
    with pytest.raises(ConfigError, match=f"optimizer: {name} has one learning rate for all"):
        rehearse_with_lr_scale(name)


def test_lr_scale_is_accepted_if_first_updates_are_skipped():
    """RAdam's first updates are zero, at any learning rate."""
    rehearse_with_lr_scale("RAdam")


class NameAndShapeSGD(torch.optim.Optimizer):
    """Makes a group per parameter and reshapes weights to rows of eight, like Adam-mini."""

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


def test_optimizer_that_depends_on_names_and_shapes(monkeypatch):
    """Trial steps with tiny parameters fail, so those with the model's shapes decide."""
    monkeypatch.setenv("TRAIN_PACKAGES", "tests")
    settings = {"_target_": f"{__name__}.NameAndShapeSGD", "lr": 0.1}
    assert build(settings, nn.Linear(8, 3))[1] == Needs()
    with pytest.raises(ConfigError, match="NameAndShapeSGD cannot be used here"):
        build(settings, nn.Linear(5, 3))


def test_optimizer_without_learning_rate_is_rejected():
    settings = {"_target_": PACKAGE, "name": "alig", "lr": 0.1}
    with pytest.raises(ConfigError, match="AliG has no learning rate"):
        build(settings, network())


def test_trial_steps_preserve_rng_states():
    model, before = network(), generator_states()
    build({"_target_": PACKAGE, "name": "dash", "lr": 0.1}, model)
    assert generator_states() == before


@pytest.mark.parametrize("name", ["lamb", "lars"])
def test_layer_adaptation_without_weight_decay(name):
    """A weight steps in proportion to its norm, whatever the scale of its gradient.

    timm's optimizers adapt only groups with weight decay unless ``always_adapt`` is set.
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
