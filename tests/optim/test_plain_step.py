"""The step without its label: the same updates, and torch's own wherever somebody listens."""

import functools

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from optim.plain_step import plain_step


def layer_and_optimizer(name="AdamW"):
    torch.manual_seed(0)
    layer = nn.Linear(3, 4)
    layer(torch.ones(2, 3)).square().sum().backward()
    return layer, getattr(torch.optim, name)(layer.parameters(), lr=0.1)


def labels_of(work):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        work()
    return {event.key for event in profile.key_averages()}


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop", "Adafactor"])
def test_same_update(name):
    layer, optimizer = layer_and_optimizer(name)
    plain_step(optimizer)()
    other, its_optimizer = layer_and_optimizer(name)
    its_optimizer.step()
    assert torch.equal(layer.weight, other.weight)
    assert layer.weight.requires_grad
    assert optimizer.state_dict()["state"].keys() == its_optimizer.state_dict()["state"].keys()


def test_the_label_is_left_out(monkeypatch):
    """Unless a profiler asks for it."""
    _, optimizer = layer_and_optimizer()
    step = plain_step(optimizer)
    assert "Optimizer.step#AdamW.step" in labels_of(step)
    monkeypatch.setattr(torch.autograd.profiler, "record_function", None)
    step()
    with pytest.raises(TypeError):
        optimizer.step()


@pytest.mark.parametrize("which", ["pre", "post", "all"])
def test_hooks_are_called(which):
    """Also those that came after the step was asked for."""
    _, optimizer = layer_and_optimizer()
    step, calls = plain_step(optimizer), []
    register = {
        "pre": optimizer.register_step_pre_hook,
        "post": optimizer.register_step_post_hook,
        "all": register_optimizer_step_post_hook,
    }[which]
    handle = register(lambda *_: calls.append(1))
    try:
        step()
    finally:
        handle.remove()
    step()
    assert calls == [1]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_step_of_the_instance_is_kept(when):
    """As torch's own schedulers put there."""
    layer, optimizer = layer_and_optimizer()
    before, calls = layer.weight.clone(), []
    step = plain_step(optimizer) if when == "after" else None
    optimizer.step = lambda: calls.append(1)
    (step or plain_step(optimizer))()
    assert calls == [1]
    assert torch.equal(layer.weight, before)


def test_a_step_around_a_step_is_kept():
    """It looks like torch's own, whose marks functools copies."""
    layer_and_optimizer("SGD")  # puts the wrapper there
    calls = []

    class Counted(torch.optim.SGD):
        @functools.wraps(torch.optim.SGD.step)
        def step(self, closure=None):
            calls.append(1)
            return torch.optim.SGD.step(self, closure)

    plain_step(Counted([torch.zeros(1, requires_grad=True)], lr=0.1))()
    assert calls == [1]


def test_an_optimizer_that_is_not_torchs():
    class Own:
        def step(self):
            return "stepped"

    assert plain_step(Own())() == "stepped"
