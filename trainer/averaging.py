"""Averages of a model's weights over the run: exponential (EMA) and stochastic weight averaging."""

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from core.errors import ConfigError
from core.schema import TrainerSettings
from optim.schedules import Horizon

DEFAULT_DECAY = 0.999


class Average:
    """A copy of a model, in ``module``, that every :meth:`update` moves towards the model.

    Buffers are copied, not averaged. Updates are counted in Python: torch's ``AveragedModel`` reads
    its count back from the device at every update.
    """

    stale_statistics = False  # whether batch norms are to be estimated again before it is used

    def __init__(self, model: nn.Module) -> None:
        self.module = copy.deepcopy(model)
        for layer in self.module.modules():
            if isinstance(layer, nn.RNNBase):
                layer.flatten_parameters()  # a copy's weights lie apart, which cuDNN is slower with
        self.num_updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after update ``step``, where they are to be averaged."""
        if not self.is_due(step):
            return
        self.move(list(self.module.parameters()), list(model.parameters()))
        for own, current in zip(self.module.buffers(), model.buffers(), strict=True):
            own.copy_(current)
        self.num_updates += 1

    def is_due(self, step: int) -> bool:
        raise NotImplementedError

    def move(self, own: list[nn.Parameter], current: list[nn.Parameter]) -> None:
        raise NotImplementedError


class ExponentialAverage(Average):
    """Moves by ``1 - decay`` at every update.

    The decay starts low and rises to its value as ``(1 + updates) / (10 + updates)``, so that short
    runs are not averages of their random start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.decay = decay

    def is_due(self, step: int) -> bool:
        return True

    def move(self, own: list[nn.Parameter], current: list[nn.Parameter]) -> None:
        done = self.num_updates
        decay = min(self.decay, (1 + done) / (10 + done)) if done else 0.0  # the first copies
        get_ema_multi_avg_fn(decay)(own, current, done)


class StochasticWeightAverage(Average):
    """The mean of the weights at every ``every``-th update from ``start`` on (arXiv:1803.05407)."""

    stale_statistics = True

    def __init__(self, model: nn.Module, start: int, every: int) -> None:
        super().__init__(model)
        self.start = start
        self.every = every

    def is_due(self, step: int) -> bool:
        return step >= self.start and (step - self.start) % self.every == 0

    def move(self, own: list[nn.Parameter], current: list[nn.Parameter]) -> None:
        get_ema_multi_avg_fn(self.num_updates / (self.num_updates + 1))(own, current, 0)


def build_average(settings: TrainerSettings, model: nn.Module, horizon: Horizon) -> Average | None:
    """The average that ``trainer.average`` asks for, if any."""
    kind = kind_of_average(settings)
    if kind == "ema":
        decay = settings.ema_decay
        return ExponentialAverage(model, DEFAULT_DECAY if decay is None else decay)
    if kind == "swa":
        start = max(1, round(settings.swa_start * horizon.total_steps))
        every = settings.swa_every_steps or horizon.steps_per_epoch
        # the last update is one of them
        return StochasticWeightAverage(model, start + (horizon.total_steps - start) % every, every)
    return None


def kind_of_average(settings: TrainerSettings) -> str | None:
    """``ema``, ``swa`` or None; a decay alone asks for ``ema``.

    Raises:
        ConfigError: ``ema_decay`` stands beside another average.
    """
    if settings.ema_decay is None:
        return settings.average
    if settings.average == "swa":
        raise ConfigError(
            f"trainer.average=swa has no use for trainer.ema_decay={settings.ema_decay}: set that "
            "to null, or trainer.average=ema"
        )
    return "ema"


def check_average(settings: TrainerSettings, against: str) -> None:
    """Raises: ConfigError: there is to be an average, ``against`` which something stands."""
    if kind := kind_of_average(settings):
        said = f"ema_decay={settings.ema_decay}" if settings.ema_decay is not None else ""
        raise ConfigError(
            f"trainer.{said or f'average={kind}'} does not go with {against}: set it to null"
        )
