"""One objective on many processes: equal weights, batch norm over all samples, DDP or FSDP2."""

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from core.errors import ConfigError
from core.schema import TrainerSettings
from objectives.base import Objective
from trainer.distributed.process_group import sum_amid_computation
from trainer.distributed.sync_batchnorm import synchronize_batchnorm

FEW_BYTES = 32_000_000  # of the gradients of all processes; more are a matter of bandwidth


def distribute(objective: Objective, settings: TrainerSettings) -> None:
    """Give every process rank 0's weights and what its strategy needs, in place.

    Comes before the optimizers, since FSDP replaces the parameters.

    Raises:
        ConfigError: the model or a setting does not go with the strategy.
    """
    if not dist.is_initialized():
        if settings.strategy == "fsdp":
            raise ConfigError("trainer.strategy=fsdp needs several processes: give trainer.devices")
        return
    with torch.no_grad():
        for tensor in [*objective.parameters(), *objective.buffers()]:
            dist.broadcast(tensor, 0)
    if settings.sync_batchnorm:
        device = next(objective.parameters()).device
        synchronize_batchnorm(objective, device.type)
    if settings.strategy == "fsdp":
        from trainer.distributed.fsdp import shard  # its imports cost a second

        if settings.ema_decay is not None:
            raise ConfigError("trainer.ema_decay does not go with trainer.strategy=fsdp: use ddp")
        for module in objective.phases().values():
            shard(module)


def for_strategy(
    optimizer: dict[str, Any], settings: TrainerSettings, where: str
) -> dict[str, Any]:
    """The settings of an optimizer that can step on what the strategy leaves each process.

    Raises:
        ConfigError: it needs whole matrices, which FSDP spreads.
    """
    if settings.strategy != "fsdp":
        return optimizer
    if optimizer["_target_"] == "torch.optim.Adafactor":
        raise ConfigError(f"{where}=adafactor needs whole matrices: use trainer.strategy=ddp")
    if optimizer["_target_"] == "torch.optim.SGD":  # its fused kernel knows no shares
        return {**optimizer, "fused": False, "foreach": True}
    return optimizer


def wrap(compute: nn.Module, module: nn.Module, settings: TrainerSettings) -> nn.Module:
    """``compute`` with the gradients of ``module``'s parameters averaged over all processes.

    Args:
        compute: what a phase computes; may use parameters that other phases train.
        module: what the phase trains.
    """
    if not dist.is_initialized():
        return compute
    if settings.strategy == "fsdp":
        from trainer.distributed.fsdp import ShardedCompute

        return ShardedCompute(compute, module)
    trained = {id(parameter) for parameter in module.parameters()}
    foreign = [name for name, p in compute.named_parameters() if id(p) not in trained]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(compute, foreign)
    with nullcontext() if settings.compile else ddp_without_compiler():
        parallel = DistributedDataParallel(
            compute,
            # synchronized batch norms keep them equal; else rank 0's are everyone's
            forward_sync_buffers=not settings.sync_batchnorm,
            gradient_as_bucket_view=True,
            init_sync=False,  # distribute() did it, for all phases at once
        )
    parameters = list(module.parameters())
    num_bytes = sum(p.numel() * p.element_size() for p in parameters) * dist.get_world_size()
    if parameters[0].device.type == "cpu" and num_bytes <= FEW_BYTES:
        parallel.register_comm_hook(None, average_amid_computation)
    return parallel


def average_amid_computation(
    state: None, bucket: dist.GradBucket
) -> torch.futures.Future[torch.Tensor]:
    """DDP's exchange of gradients that are so few that waiting is what costs."""
    average = torch.futures.Future[torch.Tensor]()
    average.set_result(sum_amid_computation(bucket.buffer()).div_(dist.get_world_size()))
    return average


@contextmanager
def ddp_without_compiler() -> Iterator[None]:
    """Keep DDP from importing ``torch._dynamo``, over a second of every start.

    It asks for a setting of the compiler when it is built, and hides a method from it, even where
    nothing is compiled. In a torch that does neither, or otherwise, nothing changes.
    """
    if "torch._dynamo" not in sys.modules:
        plain = inspect.unwrap(DistributedDataParallel._inside_ddp_forward)
        plain.__dynamo_disable = plain
        utils = SimpleNamespace(get_optimize_ddp_mode=lambda: "no_optimization")
        vars(torch)["_dynamo"] = SimpleNamespace(utils=utils)
    try:
        yield
    finally:
        if "torch._dynamo" not in sys.modules:
            del vars(torch)["_dynamo"]


def make_whole(model: nn.Module) -> None:
    """Gather a model that FSDP has spread, so that each process can use it by itself."""
    if any(hasattr(module, "unshard") for module in model.modules()):
        from trainer.distributed.fsdp import gather_weights

        gather_weights(model)
