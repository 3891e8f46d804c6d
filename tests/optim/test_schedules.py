"""Schedules: agreement with torch's schedulers over the whole horizon, invalid settings."""

from functools import partial

import pytest
import torch
from torch.optim import lr_scheduler

from core.errors import ConfigError
from optim import schedules
from optim.build import build_schedule
from optim.schedules import Evaluations, Horizon
from optim.setting_schedule import SettingSchedule

BASE_LR = 0.3


def torch_rates(make, num_steps: int) -> list[float]:
    """Return the learning rate of each update under the torch scheduler built by ``make``."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE_LR)
    scheduler = make(optimizer)
    rates = []
    for _ in range(num_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def warmup_then_cosine(optimizer):
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=1000)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=9000)
    return lr_scheduler.SequentialLR(optimizer, [warmup, cosine], milestones=[1000])


# case: our schedule, torch's scheduler, horizon
PAIRS = {
    "cosine": (
        schedules.cosine,
        partial(lr_scheduler.CosineAnnealingLR, T_max=500),
        Horizon(500, 50),
    ),
    "cosine to eta_min": (
        partial(schedules.cosine, eta_min=0.01),
        partial(lr_scheduler.CosineAnnealingLR, T_max=500, eta_min=0.01),
        Horizon(500, 50),
    ),
    "warm-up, then cosine": (
        partial(schedules.cosine, warmup_steps=1000, start_factor=0.01),
        warmup_then_cosine,
        Horizon(10_000, 1000),
    ),
    "step": (
        partial(schedules.step_decay, step_size=7, gamma=0.3),
        partial(lr_scheduler.StepLR, step_size=7 * 20, gamma=0.3),
        Horizon(600, 20),
    ),
    "linear warm-up": (
        partial(schedules.constant, warmup_steps=100, start_factor=0.01),
        partial(lr_scheduler.LinearLR, start_factor=0.01, total_iters=100),
        Horizon(300, 30),
    ),
    "constant": (schedules.constant, partial(lr_scheduler.ConstantLR, factor=1), Horizon(50, 5)),
    "linear": (
        schedules.polynomial,
        partial(lr_scheduler.PolynomialLR, total_iters=200),
        Horizon(200, 20),
    ),
    "square": (
        partial(schedules.polynomial, power=2.0),
        partial(lr_scheduler.PolynomialLR, total_iters=200, power=2.0),
        Horizon(200, 20),
    ),
    "warm restarts": (
        partial(schedules.warm_restarts, period=2, period_factor=2, eta_min=0.01),
        partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=20, T_mult=2, eta_min=0.01),
        Horizon(150, 10),
    ),
    **{
        f"one cycle of {total}": (
            schedules.one_cycle,
            partial(
                lr_scheduler.OneCycleLR, max_lr=BASE_LR, total_steps=total, cycle_momentum=False
            ),
            Horizon(total, 10),
        )
        for total in (10, 333)
    },
}


@pytest.mark.parametrize("name", PAIRS)
def test_schedule_equals_torch_scheduler(name):
    schedule, make, horizon = PAIRS[name]
    ours = [schedule(step, BASE_LR, horizon) for step in range(horizon.total_steps)]
    theirs = torch_rates(make, horizon.total_steps)
    assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9)


def test_lr_stays_at_its_final_value_beyond_horizon():
    horizon = Horizon(10, 5)
    assert schedules.cosine(50, 1.0, horizon, eta_min=0.1) == pytest.approx(0.1)
    assert schedules.polynomial(50, 1.0, horizon) == 0


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cosine", {"warmup_steps": 101}, "warmup_steps=101 .* 100 updates"),
        ("polynomial", {"warmup_steps": 101}, "warmup_steps=101 .* 100 updates"),
        ("constant", {"warmup_steps": 101}, "warmup_steps=101 .* 100 updates"),
        ("cosine", {"warmup_steps": 5, "warmup_fraction": 0.1}, "twice"),
    ],
)
def test_invalid_warmup_is_rejected(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        build_schedule({"_target_": f"optim.schedules.{name}", **settings}, Horizon(100, 10))


def test_max_steps_overrides_max_epochs():
    assert Horizon.of(3, None, 50).total_steps == 150
    assert Horizon.of(3, 70, 50).total_steps == 70


@pytest.mark.parametrize("name", ["cosine", "constant", "polynomial", "one_cycle"])
def test_lr_is_finite_and_bounded_at_every_step(name):
    schedule = getattr(schedules, name)
    for total in (1, 2, 3, 10, 333):
        for fraction in (0.0, 1e-9, 0.01, 0.3, 0.5, 1.0):
            for step in range(2 * total + 1):  # a resumed run may exceed its horizon
                lr = schedule(step, 0.3, Horizon(total, 10), warmup_fraction=fraction)
                assert 0 <= lr <= 0.3 * (1 + 1e-9)


@pytest.mark.parametrize("argument", ["step", "base_lr", "horizon"])
def test_arguments_set_by_the_program_are_rejected(argument):
    node = {"_target_": "optim.schedules.cosine", argument: 5}
    with pytest.raises(ConfigError, match=rf"scheduler\.{argument} is set by the program"):
        build_schedule(node, Horizon(100, 10))


@pytest.mark.parametrize("target", ["torch.optim.lr_scheduler.StepLR", "optim.schedules.anneal"])
def test_target_that_is_not_a_schedule_is_rejected(target):
    with pytest.raises(ConfigError, match=r"scheduler\._target_=.* is not a schedule, .*base_lr"):
        build_schedule({"_target_": target}, Horizon(100, 10))


@pytest.mark.parametrize("shape", ["linear", "cosine", "1-sqrt"])
def test_wsd_warms_up_then_holds_then_decays(shape):
    schedule = partial(schedules.wsd, horizon=Horizon(100, 10), warmup_steps=10, shape=shape)
    rates = [schedule(step, BASE_LR, decay_fraction=0.2, eta_min=0.03) for step in range(101)]
    assert rates[:10] == [schedules.constant(s, BASE_LR, Horizon(100, 10), 10) for s in range(10)]
    assert set(rates[10:81]) == {BASE_LR}
    assert rates[81:] == sorted(set(rates[81:]), reverse=True)
    assert rates[-1] == pytest.approx(0.03)
    halfway = {"linear": 0.5, "cosine": 0.5, "1-sqrt": 1 - 0.5**0.5}[shape]
    assert rates[90] == pytest.approx(0.03 + 0.27 * halfway)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ExponentialLR", {"gamma": 0.9}),
        ("MultiStepLR", {"milestones": [3, 9], "gamma": 0.5}),
        ("CyclicLR", {"step_size_up": 7}),
        ("OneCycleLR", {"total_steps": 35}),
    ],
)
def test_torch_schedule_equals_torch_scheduler(name, settings):
    """The last step is queried first, as after resuming. Cyclic schedules peak at the base lr."""
    node = {"_target_": "optim.torch_schedules.torch_schedule", "name": name, **settings}
    schedule = build_schedule({**node, "warmup_steps": 5}, Horizon(40, 10))
    lr_settings = {
        "CyclicLR": {"base_lr": 0.1 * BASE_LR, "max_lr": BASE_LR},
        "OneCycleLR": {"max_lr": BASE_LR, "cycle_momentum": False},
    }.get(name, {})
    make = partial(getattr(lr_scheduler, name), **settings, **lr_settings)
    rates = torch_rates(make, 35)
    assert schedule(39, BASE_LR) == rates[34]
    assert [schedule(step, BASE_LR) for step in range(5, 40)] == rates
    assert schedule(0, BASE_LR) == pytest.approx(0.01 * BASE_LR)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "StepLr"}, "did you mean StepLR"),
        ({"name": "StepLR", "step": 3}, "scheduler.step is set by the program"),
        ({"name": "StepLR"}, "StepLR refused its settings: .*step_size"),
        ({"name": "ReduceLROnPlateau"}, "use scheduler=plateau"),
        ({"name": "OneCycleLR", "total_steps": 9, "cycle_momentum": True}, "momentum_schedule"),
        # errors that only occur after the warm-up
        ({"name": "OneCycleLR", "total_steps": 7}, "scheduler: .*Tried to step 8 times"),
        ({"name": "StepLR", "step_sise": 20, "warmup_steps": 5}, "unexpected keyword.*step_sise"),
        ({"name": "StepLR", "step_size": 0}, "scheduler: .*by zero"),
    ],
)
def test_invalid_torch_schedule_settings_are_rejected(settings, message):
    node = {"_target_": "optim.torch_schedules.torch_schedule", **settings}
    with pytest.raises(ConfigError, match=message):
        build_schedule(node, Horizon(9, 10))


@pytest.mark.parametrize("mode", ["max", "min"])
def test_plateau_equals_torch_scheduler(mode):
    node = {"_target_": "optim.torch_schedules.plateau", "patience": 1, "factor": 0.5}
    schedule = build_schedule(node, Horizon(100, 10))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE_LR)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, mode, patience=1, factor=0.5)
    values = [0.5, 0.7, 0.6, 0.6, 0.65, 0.4, 0.3, float("nan"), 0.9, 0.8, 0.8]
    rates = set()
    for count, value in enumerate(values):
        seen = Evaluations(tuple(values[:count]), mode)
        assert schedule(10 * count, BASE_LR, seen) == optimizer.param_groups[0]["lr"]
        rates.add(schedule(10 * count, BASE_LR, seen))
        scheduler.step(value)
    assert len(rates) > 2


def test_momentum_and_weight_decay_schedules():
    """Adam's first beta counts as momentum. Groups without weight decay stay without it."""
    schedule = build_schedule(
        {"_target_": "optim.schedules.cosine", "eta_min": 0.5}, Horizon(100, 10)
    )
    weight, bias = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    groups = [{"params": [weight], "weight_decay": 0.1}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    for name in ("momentum", "weight_decay"):
        SettingSchedule(optimizer, name, schedule).set(50, Evaluations())
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert [group["betas"] for group in optimizer.param_groups] == [(0.7, 0.99)] * 2
    sgd = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    SettingSchedule(sgd, "momentum", schedule).set(0, Evaluations())
    assert sgd.param_groups[0]["momentum"] == 0.9
    with pytest.raises(ConfigError, match="weight_decay_schedule: SGD has no weight_decay"):
        SettingSchedule(sgd, "weight_decay", schedule)
