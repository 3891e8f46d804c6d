"""Exponential moving average of a model's weights."""

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """A copy of a model, in ``module``, that every :meth:`update` moves towards the model.

    By ``1 - decay``: the decay starts low and rises to its value as ``(1 + updates) / (10 +
    updates)``, so that short runs are not averages of their random start. Buffers are copied, not
    averaged. Updates are counted in Python: torch's ``AveragedModel`` reads its count back from the
    device at every update.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model)
        for layer in self.module.modules():
            if isinstance(layer, nn.RNNBase):
                layer.flatten_parameters()  # a copy's weights lie apart, which cuDNN is slower with
        self.decay = decay
        self.num_updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        done = self.num_updates
        decay = min(self.decay, (1 + done) / (10 + done)) if done else 0.0  # the first copies
        average = get_ema_multi_avg_fn(decay)
        average(list(self.module.parameters()), list(model.parameters()), done)
        for own, current in zip(self.module.buffers(), model.buffers(), strict=True):
            own.copy_(current)
        self.num_updates += 1
