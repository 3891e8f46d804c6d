"""Data parallelism: broadcast weights, synchronize batch norms, wrap in DDP or FSDP2."""

from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from core.errors import ConfigError
from core.schema import TrainerSettings
from objectives.base import Objective
from trainer.distributed.sync_batchnorm import synchronize_batchnorm

HAS_FORWARD_SYNC = "forward_sync_buffers" in signature(DistributedDataParallel).parameters
SYNC_BUFFERS = "forward_sync_buffers" if HAS_FORWARD_SYNC else "broadcast_buffers"  # torch < 2.12


def distribute(objective: Objective, settings: TrainerSettings) -> None:
    """Broadcast rank 0's weights, synchronize batch norms and shard under FSDP, in place.

    Call it before building the optimizers, since FSDP replaces the parameters.

    Raises:
        ConfigError: if the model or a setting is incompatible with the strategy.
    """
    if not dist.is_initialized():
        if settings.strategy == "fsdp":
            raise ConfigError("trainer.strategy=fsdp needs several processes: set trainer.devices")
        return
    with torch.no_grad():
        for tensor in [*objective.parameters(), *objective.buffers()]:
            dist.broadcast(tensor, 0)
    if settings.sync_batchnorm:
        device = next(objective.parameters()).device
        synchronize_batchnorm(objective, device.type)
    if settings.strategy == "fsdp":
        from trainer.distributed.fsdp import shard  # takes a second to import

        for module in objective.phases().values():
            shard(module)


def for_strategy(optimizer: dict[str, Any], settings: TrainerSettings) -> dict[str, Any]:
    """Optimizer settings adjusted to the strategy, such as to sharded parameters."""
    if settings.strategy == "fsdp" and optimizer["_target_"] == "torch.optim.SGD":
        # its fused kernel does not support DTensor
        return {**optimizer, "fused": False, "foreach": True}
    return optimizer


def wrap(compute: nn.Module, module: nn.Module, settings: TrainerSettings) -> nn.Module:
    """Wrap ``compute`` to average the gradients of ``module``'s parameters over all processes.

    Args:
        compute: the phase's computation; may use parameters that other phases train.
        module: the module that the phase trains.
    """
    if not dist.is_initialized():
        return compute
    if settings.strategy == "fsdp":
        from trainer.distributed.fsdp import ShardedCompute

        return ShardedCompute(compute, module)
    trained = {id(parameter) for parameter in module.parameters()}
    other_parameters = [p for p in compute.parameters() if id(p) not in trained and p.requires_grad]
    for parameter in other_parameters:  # DDP registers all that require gradients
        parameter.requires_grad_(False)
    # broadcast buffers from rank 0, unless synchronized batch norms keep them equal already
    sync_buffers: dict[str, Any] = {SYNC_BUFFERS: not settings.sync_batchnorm}
    parallel = DistributedDataParallel(
        compute,
        **sync_buffers,
        gradient_as_bucket_view=True,
        init_sync=False,  # distribute() has done it for all phases at once
    )
    for parameter in other_parameters:
        parameter.requires_grad_(True)
    return parallel


def make_whole(model: nn.Module) -> None:
    """Unshard a model under FSDP, so that each process can run it independently."""
    if any(hasattr(module, "unshard") for module in model.modules()):
        from trainer.distributed.fsdp import gather_weights

        gather_weights(model)


def class_name(model: nn.Module) -> str:
    """Class name of the model, without the class that FSDP adds when it shards a model."""
    return next(kind.__name__ for kind in type(model).__mro__ if not hasattr(kind, "unshard"))
