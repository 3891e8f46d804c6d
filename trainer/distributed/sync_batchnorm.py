"""Batch normalization over the samples of all processes.

CUDA uses torch's ``SyncBatchNorm``, which does not support CPU tensors; the CPU uses the class
below. Layers are converted in place by changing their class, so parameters, buffers, hooks, names
and the state dict are those of a plain batch norm.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from core.collectives import sum_over_ranks
from core.errors import ConfigError

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class CpuSyncBatchNorm(nn.BatchNorm1d):
    """``(N, C, ...)`` -> same shape, normalized by the mean and variance over all processes.

    Every sample has the same weight, even if processes have different batch sizes. Evaluation
    needs no communication, since all processes have the same running statistics.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            batch_moments = self.running_mean is None
            mean, var = self.running_mean, self.running_var
            return F.batch_norm(
                x, mean, var, self.weight, self.bias, training=batch_moments, eps=self.eps
            )
        dims = [dim for dim in range(x.dim()) if dim != 1]
        inputs = x.to(torch.promote_types(x.dtype, torch.float32))
        mean, var, count = global_moments(inputs, dims)
        if self.track_running_stats:
            self.track(mean, var * count / (count - 1))
        scale = (var + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        y = (inputs - per_channel(mean, x)) * per_channel(scale, x)
        if self.bias is not None:
            y = y + per_channel(self.bias, x)
        return y.to(x.dtype)

    @torch.no_grad()
    def track(self, mean: Tensor, unbiased_var: Tensor) -> None:
        layer: Any = self  # torch types its statistics as optional
        layer.num_batches_tracked += 1
        # momentum None: the mean over all batches so far
        weight = 1 / int(layer.num_batches_tracked) if self.momentum is None else self.momentum
        layer.running_mean.lerp_(mean.to(layer.running_mean), weight)
        layer.running_var.lerp_(unbiased_var.to(layer.running_var), weight)


class AllReduceSum(torch.autograd.Function):
    """Differentiable all-reduce: sums over all processes, forward and backward."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return sum_over_ranks(values.clone())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return sum_over_ranks(grad.clone())


def global_moments(x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance ``(C,)`` over ``dims`` and all processes, and the sample count.

    A single all-reduce of raw moments, in float64 to avoid cancellation.

    Raises:
        ValueError: if there is only one value per channel.
    """
    var, mean = (moment.double() for moment in torch.var_mean(x, dims, correction=0))
    local_count = mean.new_full((1,), x.numel() // len(mean))
    local = torch.cat([local_count, local_count * mean, local_count * (var + mean**2)])
    count, sums, squares = AllReduceSum.apply(local).split([1, len(mean), len(mean)])
    if count <= 1:
        raise ValueError(f"batch norm needs more than one value per channel, got {tuple(x.shape)}")
    mean = sums / count
    var = (squares / count - mean**2).clamp_min(0)
    return mean.to(x.dtype), var.to(x.dtype), count.detach().to(x.dtype)


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """``(C,)`` -> ``(1, C, 1, ...)``, which broadcasts over ``x``."""
    return values.view(1, -1, *[1] * (x.dim() - 2))


class ActivationAfter:
    """Applies dropout and activation after the norm, as timm's ``BatchNormAct2d`` does."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))  # type: ignore[misc,attr-defined]


class CpuSyncBatchNormAct(ActivationAfter, CpuSyncBatchNorm):
    pass


class CudaSyncBatchNormAct(ActivationAfter, nn.SyncBatchNorm):
    pass


SYNCHRONIZED = (CpuSyncBatchNorm, nn.SyncBatchNorm)


def synchronize_batchnorm(model: nn.Module, device_type: str) -> None:
    """Convert every batch norm of ``model``, in place, to its synchronized version.

    Raises:
        ConfigError: if there is no synchronized version of a batch norm.
    """
    is_cuda = device_type == "cuda"
    for name, module in model.named_modules():
        has_statistics = isinstance(module, PLAIN) or hasattr(module, "num_batches_tracked")
        if not has_statistics or isinstance(module, SYNCHRONIZED):
            continue
        if type(module) in PLAIN:
            kind: type[nn.Module] = nn.SyncBatchNorm if is_cuda else CpuSyncBatchNorm
        elif type(module).__name__ == "BatchNormAct2d":  # timm's, imported only with its models
            kind = CudaSyncBatchNormAct if is_cuda else CpuSyncBatchNormAct
        else:
            raise ConfigError(
                f"{name} is a {type(module).__name__}, which has no synchronized form: use another "
                "norm, or set trainer.sync_batchnorm=false (statistics per process)"
            )
        module.__class__ = kind
        if is_cuda:
            vars(module)["process_group"] = None  # the default group
