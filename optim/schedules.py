"""Learning-rate schedules as pure functions of the step.

A schedule is a function ``(step, base_lr, horizon, **settings) -> lr``: ``step`` counts optimizer
updates from 0, ``base_lr`` is the optimizer's initial learning rate and ``horizon`` the length of
the run. The trainer calls it once per update. Schedules are stateless, so they cannot drift or
resume wrongly. A new schedule is a function here (or in another file) and a YAML. If it has a
parameter ``evaluations``, it receives the :class:`Evaluations` so far. Other settings, such as
momentum, use the same functions, with their initial value as ``base_lr``.

Each function agrees with torch's scheduler of the same name over the whole horizon.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from core.errors import ConfigError
from core.schema import Count, Fraction, NonNegative, Positive

WarmupSteps = Annotated[int | None, Field(ge=0)]  # in updates; null: set by warmup_fraction


@dataclass(frozen=True)
class Horizon:
    """The length of a run, in optimizer updates.

    Attributes:
        batches_offset: batches read minus updates made. It is nonzero only in a run that was
            resumed with another batch size, which changes the number of updates per epoch.
    """

    total_steps: int
    steps_per_epoch: int
    batches_offset: int = 0

    @classmethod
    def of(
        cls,
        max_epochs: int,
        max_steps: int | None,
        steps_per_epoch: int,
        batches_offset: int = 0,
    ) -> "Horizon":
        """The horizon of ``max_steps`` updates if given, else of ``max_epochs`` epochs."""
        total_steps = max_steps or max_epochs * steps_per_epoch - batches_offset
        return cls(total_steps, steps_per_epoch, batches_offset)

    def epoch(self, step: int) -> int:
        """The epoch of update ``step``, counted from 0."""
        return (step + self.batches_offset) // self.steps_per_epoch


@dataclass(frozen=True)
class Evaluations:
    """The results of the evaluations so far.

    Attributes:
        values: values of the monitored metric, in chronological order.
        mode: whether the metric is maximized (``max``) or minimized (``min``).
    """

    values: tuple[float, ...] = ()
    mode: Literal["max", "min"] = "min"


def constant(
    step: int,
    base_lr: float,
    horizon: Horizon,
    warmup_steps: WarmupSteps = None,
    warmup_fraction: Fraction = 0.0,
    start_factor: float = 0.01,
) -> float:
    """``base_lr`` throughout, after an optional linear warm-up (torch's ``LinearLR``)."""
    begin = warmup_end(warmup_steps, warmup_fraction, horizon)
    return warmup(step, base_lr, begin, start_factor)


def cosine(
    step: int,
    base_lr: float,
    horizon: Horizon,
    warmup_steps: WarmupSteps = None,
    warmup_fraction: Fraction = 0.0,
    start_factor: float = 0.01,
    eta_min: float = 0.0,
) -> float:
    """Cosine annealing from ``base_lr`` to ``eta_min`` over the horizon (SGDR, arXiv:1608.03983).

    With a warm-up it equals ``SequentialLR(LinearLR, CosineAnnealingLR)``: the cosine spans the
    steps after the warm-up. ``eta_min`` is a learning rate, not a factor.
    """
    begin = warmup_end(warmup_steps, warmup_fraction, horizon)
    if step < begin:
        return warmup(step, base_lr, begin, start_factor)
    return anneal(base_lr, eta_min, progress(step, begin, horizon))


def polynomial(
    step: int,
    base_lr: float,
    horizon: Horizon,
    warmup_steps: WarmupSteps = None,
    warmup_fraction: Fraction = 0.0,
    start_factor: float = 0.01,
    power: NonNegative = 1.0,
) -> float:
    """``base_lr * (1 - progress) ** power``; power 1 is the linear decay (``PolynomialLR``)."""
    begin = warmup_end(warmup_steps, warmup_fraction, horizon)
    if step < begin:
        return warmup(step, base_lr, begin, start_factor)
    return base_lr * (1 - progress(step, begin, horizon)) ** power


def step_decay(
    step: int, base_lr: float, horizon: Horizon, step_size: Count, gamma: NonNegative = 0.1
) -> float:
    """Multiply by ``gamma`` every ``step_size`` epochs (torch's ``StepLR``)."""
    return base_lr * gamma ** (horizon.epoch(step) // step_size)


def wsd(
    step: int,
    base_lr: float,
    horizon: Horizon,
    warmup_steps: WarmupSteps = None,
    warmup_fraction: Fraction = 0.0,
    start_factor: float = 0.01,
    decay_fraction: Fraction = 0.2,
    shape: Literal["linear", "cosine", "1-sqrt"] = "1-sqrt",
    eta_min: float = 0.0,
) -> float:
    """Warm-up, stable ``base_lr``, then decay over the last ``decay_fraction`` of the horizon.

    The decay's ``shape`` is linear, cosine or 1-sqrt, the best of arXiv:2405.18392.
    """
    begin = warmup_end(warmup_steps, warmup_fraction, horizon)
    decay = horizon.total_steps - round(decay_fraction * horizon.total_steps)
    if decay < begin:
        raise ConfigError(
            f"scheduler.decay_fraction={decay_fraction} starts the decay before the warm-up "
            f"ends at update {begin} of {horizon.total_steps}: shorten one of them"
        )
    if step <= decay:
        return warmup(step, base_lr, begin, start_factor)
    return eta_min + (base_lr - eta_min) * DECAYS[shape](progress(step, decay, horizon))


DECAYS: dict[str, Callable[[float], float]] = {  # 1 at the start of the decay, 0 at its end
    "linear": lambda share: 1 - share,
    "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
    "1-sqrt": lambda share: 1 - math.sqrt(share),
}


def warm_restarts(
    step: int,
    base_lr: float,
    horizon: Horizon,
    period: Count = 1,
    period_factor: Annotated[float, Field(ge=1)] = 2.0,
    eta_min: float = 0.0,
) -> float:
    """Cosines from ``base_lr`` to ``eta_min``, each longer than the last (SGDR, arXiv:1608.03983).

    The first takes ``period`` epochs, each later one ``period_factor`` times the one before
    (torch's ``CosineAnnealingWarmRestarts``). Runs should stop at the end of a cosine: with the
    defaults, after 1, 3, 7 or 15 epochs.
    """
    begin, length = 0.0, float(period * horizon.steps_per_epoch)
    position = step + horizon.batches_offset
    while position >= begin + length:
        begin, length = begin + length, length * period_factor
    return anneal(base_lr, eta_min, (position - begin) / length)


def one_cycle(
    step: int,
    base_lr: float,
    horizon: Horizon,
    warmup_fraction: Fraction = 0.3,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
) -> float:
    """Cosine up to ``base_lr``, then cosine down (``OneCycleLR``, arXiv:1708.07120).

    Starts at ``base_lr / div_factor`` and ends at that divided by ``final_div_factor``. Momentum
    stays constant (``cycle_momentum=False``).
    """
    peak = warmup_fraction * horizon.total_steps - 1
    last = horizon.total_steps - 1
    start, end = base_lr / div_factor, base_lr / div_factor / final_div_factor
    if step <= peak:
        return anneal(start, base_lr, step / peak if peak > 0 else 1.0)
    return anneal(base_lr, end, (step - peak) / max(last - peak, 1e-9))


def lr_range(
    step: int,
    base_lr: float,
    horizon: Horizon,
    start_factor: Annotated[float, Field(gt=0, lt=1)] = 1e-6,
) -> float:
    """Exponential increase from ``start_factor * base_lr`` to ``base_lr`` at the last step.

    Used for a learning-rate range test (arXiv:1506.01186).
    """
    return base_lr * start_factor ** (1 - step / max(horizon.total_steps - 1, 1))


def anneal(start: float, end: float, share: float) -> float:
    """Cosine interpolation from ``start`` to ``end``; a ``share`` beyond 1 counts as 1."""
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


def warmup(step: int, base_lr: float, end: int, start_factor: float) -> float:
    """Linear from ``start_factor * base_lr`` at step 0 to ``base_lr`` at step ``end``."""
    if step >= end:
        return base_lr
    return base_lr * (start_factor + (1 - start_factor) * step / end)


def warmup_end(steps: int | None, fraction: float, horizon: Horizon) -> int:
    """The first update after the warm-up, from ``steps`` or a ``fraction`` of the horizon."""
    if steps is None:
        return round(fraction * horizon.total_steps)
    if fraction:
        raise ConfigError(
            f"scheduler.warmup_steps={steps} and scheduler.warmup_fraction={fraction} set "
            "the warm-up twice: set one of them to null or 0"
        )
    if steps > horizon.total_steps:
        raise ConfigError(
            f"scheduler.warmup_steps={steps} is longer than the run's horizon of "
            f"{horizon.total_steps} updates (trainer.max_epochs, trainer.max_steps): shorten it"
        )
    return steps


def progress(step: int, begin: int, horizon: Horizon) -> float:
    """0 at update ``begin``, the end of the warm-up, 1 at the horizon and beyond."""
    length = horizon.total_steps - begin
    return min(1.0, (step - begin) / length) if length else 1.0
