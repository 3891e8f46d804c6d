"""FSDP2: each process keeps its share of parameters, gradients and optimizer state.

The weights of a block are whole only while it computes. For evaluation they are gathered once, as
processes may then run different numbers of batches, or only one of them.
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
    """Spread ``module``'s parameters over all processes, block by block."""
    device = next(module.parameters()).device
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    module.to(memory_format=torch.contiguous_format)  # FSDP takes no other weights
    for block in [*blocks(module), module]:
        if any(True for _ in block.parameters()):
            fully_shard(block, mesh=mesh, reshard_after_forward=True)


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost lists and sequences: a Transformer's layers, a CNN's stages."""
    for child in module.children():
        if isinstance(child, CONTAINERS):
            yield from child.children()
        else:
            yield from blocks(child)


def sharded_parts(module: nn.Module) -> list[FSDPModule]:
    return [part for part in module.modules() if isinstance(part, FSDPModule)]


class ShardedCompute(nn.Module):
    """What a phase computes, with the interface that DDP has for accumulating gradients."""

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
    """Make ``model`` whole on every process until it is trained on."""
    with torch.inference_mode(False), torch.no_grad():
        for part in sharded_parts(model):
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
