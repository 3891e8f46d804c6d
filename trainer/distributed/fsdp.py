"""FSDP2: each process keeps a shard of the parameters, gradients and optimizer state.

A block's weights are unsharded only while it computes. For evaluation all are unsharded once, since
processes may then run different numbers of batches, or none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

CONTAINERS = (nn.ModuleList, nn.Sequential)


def shard(module: nn.Module) -> None:
    """Shard ``module``'s parameters over all processes, block by block."""
    device = next(module.parameters()).device
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    module.to(memory_format=torch.contiguous_format)  # FSDP accepts no other format
    for block in [*blocks(module), module]:
        if any(True for _ in block.parameters()):
            fully_shard(block, mesh=mesh, reshard_after_forward=True)


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Children of the outermost ModuleLists and Sequentials: Transformer layers, CNN stages."""
    for child in module.children():
        if isinstance(child, CONTAINERS):
            yield from child.children()
        else:
            yield from blocks(child)


def sharded_parts(module: nn.Module) -> list[FSDPModule]:
    return [part for part in module.modules() if isinstance(part, FSDPModule)]


class ShardedCompute(nn.Module):
    """Wraps a phase's computation with DDP's ``no_sync`` interface for gradient accumulation."""

    def __init__(self, compute: nn.Module, module: nn.Module) -> None:
        super().__init__()
        self.compute = compute
        self.parts = sharded_parts(module)

    def forward(self, batch: tuple[Tensor, ...]) -> Any:
        for part in self.parts:
            part.set_reshard_after_forward(True, recurse=False)
        return self.compute(batch)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        for part in self.parts:
            part.set_requires_gradient_sync(False, recurse=False)
        yield
        for part in self.parts:
            part.set_requires_gradient_sync(True, recurse=False)


def gather_weights(model: nn.Module) -> None:
    """Unshard ``model`` on every process until its next training step."""
    with torch.inference_mode(False), torch.no_grad():
        for part in sharded_parts(model):
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
