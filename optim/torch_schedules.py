"""torch's schedulers as stateless functions of the step, by replaying them from the start."""

import json
from difflib import get_close_matches
from functools import cache, lru_cache
from typing import Any

import torch
from torch.optim import SGD, lr_scheduler

from core.errors import ConfigError, reason
from core.instantiate import REFUSALS
from core.schema import Fraction
from optim.schedules import Evaluations, Horizon, WarmupSteps, warmup, warmup_end

START_FACTOR = 0.01  # first factor of a warm-up
# unsupported: they take metrics, other schedulers or functions
UNSUPPORTED = {
    "ReduceLROnPlateau": "use scheduler=plateau",
    "SequentialLR": "a warm-up is scheduler.warmup_steps",
    "ChainedScheduler": "choose a single scheduler",
    "LambdaLR": "write a function of the step: docs/train/extend.md",
    "MultiplicativeLR": "write a function of the step: docs/train/extend.md",
    "LRScheduler": "choose one of its subclasses",
}


def torch_schedule(
    step: int,
    base_lr: float,
    horizon: Horizon,
    name: str,
    warmup_steps: WarmupSteps = None,
    warmup_fraction: Fraction = 0.0,
    min_factor: float = 0.1,
    **settings: Any,
) -> float:
    """The learning rate of ``torch.optim.lr_scheduler``'s class ``name`` after ``step`` steps.

    The scheduler is stepped once per update from the end of the warm-up on, so ``step_size``,
    ``T_max`` etc. count updates. It never changes momentum, which has its own schedule.

    Args:
        min_factor: ``CyclicLR`` cycles between ``min_factor * base_lr`` and ``base_lr``.
        settings: keyword arguments of the class, except ``base_lr`` and ``max_lr``.

    Raises:
        ConfigError: if the class does not exist or is unsupported, or rejects its settings.
    """
    begin = warmup_end(warmup_steps, warmup_fraction, horizon)
    if step < begin:
        return warmup(step, base_lr, begin, START_FACTOR)
    rates = replay_of(name, base_lr, min_factor, json.dumps(settings, sort_keys=True))
    return rates.at(step - begin)


class Replay:
    """The learning rates of a torch scheduler, which is stepped on demand."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.rates: list[float] = [*scheduler.get_last_lr()]
        scheduler.optimizer.step()  # torch warns if the scheduler steps before it

    def at(self, step: int) -> float:
        while len(self.rates) <= step:
            try:
                self.scheduler.step()
            except REFUSALS as error:  # past the end of OneCycleLR, or a period of 0
                name = type(self.scheduler).__name__
                raise ConfigError(f"scheduler: {name}: {reason(error)}") from error
            self.rates += self.scheduler.get_last_lr()
        return self.rates[step]


@cache
def replay_of(name: str, base_lr: float, min_factor: float, settings: str) -> Replay:
    """A replay of the scheduler ``name`` on a dummy optimizer; ``settings`` is JSON (hashable)."""
    if name in UNSUPPORTED:
        raise ConfigError(f"scheduler.name={name} is not supported: {UNSUPPORTED[name]}")
    if name not in lr_scheduler.__all__:
        nearest = get_close_matches(name, lr_scheduler.__all__, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(f"scheduler.name={name}: torch has no scheduler of this name{hint}")
    given = json.loads(settings)
    if given.get("cycle_momentum"):
        raise ConfigError(
            "scheduler.cycle_momentum=true has no effect here: use scheduler@momentum_schedule"
        )
    fixed: dict[str, Any] = {}
    if name in ("CyclicLR", "OneCycleLR"):
        fixed = {"max_lr": base_lr, "cycle_momentum": False}
    if name == "CyclicLR":
        fixed["base_lr"] = min_factor * base_lr
    try:
        optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=base_lr)
        return Replay(getattr(lr_scheduler, name)(optimizer, **given, **fixed))
    except REFUSALS as error:
        raise ConfigError(f"scheduler: {name} refused its settings: {reason(error)}") from error


def plateau(
    step: int,
    base_lr: float,
    horizon: Horizon,
    evaluations: Evaluations,
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: str = "rel",
    cooldown: int = 0,
    min_lr: float = 0.0,
    warmup_steps: WarmupSteps = None,
    warmup_fraction: Fraction = 0.0,
) -> float:
    """Multiply by ``factor`` if the monitored metric stalls for more than ``patience`` evaluations.

    torch's ``ReduceLROnPlateau``, replayed over the evaluations recorded in the checkpoint.
    """
    begin = warmup_end(warmup_steps, warmup_fraction, horizon)
    if step < begin:
        return warmup(step, base_lr, begin, START_FACTOR)
    settings = (factor, patience, threshold, threshold_mode, cooldown, min_lr)
    return plateau_lr(base_lr, evaluations, settings)


@lru_cache(maxsize=16)
def plateau_lr(base_lr: float, evaluations: Evaluations, settings: tuple[Any, ...]) -> float:
    """``base_lr`` as ``ReduceLROnPlateau`` reduces it over these evaluations."""
    names = ("factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr")
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=base_lr)
    try:
        given: dict[str, Any] = dict(zip(names, settings, strict=True))
        scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, evaluations.mode, **given)
    except REFUSALS as error:
        raise ConfigError(f"scheduler: plateau refused its settings: {reason(error)}") from error
    for value in evaluations.values:
        scheduler.step(value)
    return float(optimizer.param_groups[0]["lr"])
