"""Batch norms' statistics for weights that were never trained with: those of an average."""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from data.loader import Loader
from objectives.base import Objective
from trainer.distributed.device import autocast
from trainer.distributed.parallel import make_whole

MAX_BATCHES = 100


@torch.no_grad()
def estimate_statistics(
    objective: Objective, model: nn.Module, data: Loader, precision: str
) -> None:
    """Give the batch norms of ``model`` the mean moments of training batches, as evaluated.

    Of the batches of ``data.batch_size``, at most ``MAX_BATCHES`` spread over the training split,
    each cut over the processes as in training. Frozen norms keep theirs, and so do those that
    evaluation does not come to.
    """
    norms: dict[str, Any] = {
        name: layer
        for name, layer in model.named_modules()
        if getattr(layer, "num_batches_tracked", None) is not None and not is_frozen(layer)
    }
    if not norms:
        return
    before = {
        name: {k: b.clone() for k, b in layer.named_buffers()} for name, layer in norms.items()
    }
    momenta = {name: layer.momentum for name, layer in norms.items()}
    model.eval()
    make_whole(model)
    for layer in norms.values():
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.train()
    for batch in data.spread_over_training(MAX_BATCHES):
        with autocast(data.device, precision):
            objective.evaluate(model, batch)
    for name, layer in norms.items():
        layer.momentum = momenta[name]
        layer.eval()
        for key, buffer in layer.named_buffers():
            if not layer.num_batches_tracked:
                buffer.copy_(before[name][key])
            elif dist.is_initialized():
                dist.broadcast(buffer, 0)  # without synchronized norms each has its own


def is_frozen(layer: nn.Module) -> bool:
    own = list(layer.parameters(recurse=False))
    return bool(own) and not any(parameter.requires_grad for parameter in own)
