"""Weight averaging: exponential moving average (EMA) and stochastic weight averaging (SWA).

Also re-estimates batch norm statistics, which averaged weights need.
"""

import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from core.errors import ConfigError
from core.schema import TrainerSettings
from data.loader import Loader
from objectives.base import Objective
from optim.schedules import Horizon
from trainer.distributed.device import autocast
from trainer.distributed.parallel import make_whole

DEFAULT_DECAY = 0.999
MAX_BATCHES = 100  # for estimating batch norm statistics


class Average:
    """A copy of the model in ``module`` whose parameters are averages of the model's.

    With ``decay``, an exponential moving average. The decay warms up as
    ``(1 + updates) / (10 + updates)``, so that the random initialization does not dominate short
    runs. Without, the plain mean of the weights (SWA, arXiv:1803.05407).

    Buffers are copied, not averaged. Updates are counted in Python: torch's ``AveragedModel`` reads
    its count back from the device at every update.

    Args:
        start: the first step to average.
        every: interval between averaged steps.
    """

    def __init__(
        self, model: nn.Module, decay: float | None = None, start: int = 1, every: int = 1
    ) -> None:
        self.module = copy.deepcopy(model)
        for layer in self.module.modules():
            if isinstance(layer, nn.RNNBase):
                layer.flatten_parameters()  # deepcopy splits the one buffer cuDNN is fast with
        self.decay, self.start, self.every = decay, start, every
        self.num_updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Average in the weights after update ``step``, if ``step`` is one to average."""
        if step < self.start or (step - self.start) % self.every:
            return
        decay = self.current_decay()
        averaged, current = list(self.module.parameters()), list(model.parameters())
        get_ema_multi_avg_fn(decay)(averaged, current, self.num_updates)
        for buffer, value in zip(self.module.buffers(), model.buffers(), strict=True):
            buffer.copy_(value)
        self.num_updates += 1

    def current_decay(self) -> float:
        """Weight of the current average in the next update; 0 for the initial copy."""
        count = self.num_updates
        if self.decay is None or count == 0:
            return count / (count + 1)
        return min(self.decay, (1 + count) / (10 + count))

    @property
    def has_stale_statistics(self) -> bool:
        """Whether batch norm statistics must be re-estimated before use."""
        return self.decay is None and self.num_updates > 0


def build_average(settings: TrainerSettings, model: nn.Module, horizon: Horizon) -> Average | None:
    """The average that ``trainer.average`` asks for, if any."""
    kind = kind_of_average(settings)
    if kind == "ema":
        decay = settings.ema_decay
        return Average(model, DEFAULT_DECAY if decay is None else decay)
    if kind == "swa":
        start = max(1, round(settings.swa_start * horizon.total_steps))
        every = settings.swa_every_steps or horizon.steps_per_epoch
        # shifted so that the last update is averaged
        return Average(model, start=start + (horizon.total_steps - start) % every, every=every)
    return None


def kind_of_average(settings: TrainerSettings) -> str | None:
    """``ema``, ``swa`` or None; ``ema_decay`` alone implies ``ema``.

    Raises:
        ConfigError: if a setting belongs to another kind of average.
    """
    every = settings.swa_every_steps
    if every is not None and settings.average != "swa":
        raise ConfigError(f"trainer.swa_every_steps={every} needs trainer.average=swa")
    if settings.ema_decay is None:
        return settings.average
    if settings.average == "swa":
        raise ConfigError(
            f"trainer.average=swa does not use trainer.ema_decay={settings.ema_decay}: set it to "
            "null, or trainer.average=ema"
        )
    return "ema"


def check_average(settings: TrainerSettings, against: str) -> None:
    """Raise ConfigError if weight averaging is on; ``against`` names what it conflicts with."""
    if kind := kind_of_average(settings):
        setting = f"ema_decay={settings.ema_decay}" if settings.ema_decay is not None else ""
        raise ConfigError(
            f"trainer.{setting or f'average={kind}'} cannot be used with {against}: set it to null"
        )


@torch.no_grad()
def estimate_statistics(
    objective: Objective, model: nn.Module, data: Loader, precision: str
) -> None:
    """Set the batch norm statistics of ``model`` to the mean over batches of training samples.

    Uses at most ``MAX_BATCHES`` batches of ``data.batch_size`` spread over the training split, each
    divided among the processes as in training, without augmentation. Norms that are frozen or that
    evaluation does not run keep their statistics.
    """
    norms: list[Any] = [
        layer
        for layer in model.modules()
        if getattr(layer, "num_batches_tracked", None) is not None and not is_frozen(layer)
    ]
    if not norms:
        return
    before = [(norm.momentum, [buffer.clone() for buffer in norm.buffers()]) for norm in norms]
    model.eval()
    make_whole(model)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    for batch in data.spread_over_training(MAX_BATCHES):
        with autocast(data.device, precision):
            objective.evaluate(model, batch)
    for norm, (momentum, values) in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.eval()
        was_reached = bool(norm.num_batches_tracked)
        for buffer, value in zip(norm.buffers(), values, strict=True):
            if not was_reached:
                buffer.copy_(value)
            elif dist.is_initialized():
                dist.broadcast(buffer, 0)  # they differ without synchronized norms


def is_frozen(layer: nn.Module) -> bool:
    parameters = list(layer.parameters(recurse=False))
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
