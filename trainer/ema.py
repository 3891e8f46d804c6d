"""Exponential moving average of a model's weights."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of ``model`` that ``update_parameters(model)`` moves by ``1 - decay``.

    The decay starts low and rises to ``decay`` as ``(1 + updates) / (10 + updates)``, so that short
    runs are not averages of their random start. Buffers are copied, not averaged.
    """

    def move(averages: Tensors, current: Tensors, num_averaged: Tensor | int) -> None:
        updates = float(num_averaged)
        weight = 1 - min(decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(averages, current, weight)

    return AveragedModel(model, multi_avg_fn=move)
