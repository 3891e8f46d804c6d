"""Batch normalization over the samples of all processes.

On CUDA it is torch's ``SyncBatchNorm``; that one refuses CPU tensors, so on the CPU it is the one
below. A synchronized layer is the layer it was under another class: its parameters, buffers, hooks
and names stay, and so its state dict remains that of a plain batch norm.
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from core.errors import ConfigError
from trainer.distributed.process_group import sum_amid_computation

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class CpuSyncBatchNorm(_BatchNorm):
    """``(N, C, ...)`` -> same shape, normalized by the moments of all processes' samples.

    Every sample weighs the same, however many of them a process has. Evaluation exchanges nothing:
    the running statistics are the same on all processes.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            batch_moments = self.running_mean is None
            mean, var = self.running_mean, self.running_var
            return F.batch_norm(
                x, mean, var, self.weight, self.bias, training=batch_moments, eps=self.eps
            )
        y, mean, var, count = SynchronizedNorm.apply(x, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            self.track(mean, var * count / (count - 1))
        return y

    @torch.no_grad()
    def track(self, mean: Tensor, unbiased_var: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        # momentum None: the mean over all batches so far
        weight = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), weight)
        self.running_var.lerp_(unbiased_var.to(self.running_var), weight)


class SynchronizedNorm(torch.autograd.Function):
    """``(x - mean) / sqrt(var + eps) * weight + bias``, the moments taken over all processes.

    One exchange each way. The passes over ``x`` are torch's own kernels for given moments; what
    these leave out is the gradient through the moments (arXiv:1502.03167, section 3), which is
    itself a batch norm of ``x`` and is added in ``backward``.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channels = x.shape[1]
        # given (and with momentum 0 untouched) statistics make the kernel return its own in float
        unused = x.new_zeros(channels, dtype=torch.promote_types(x.dtype, torch.float32))
        mean, var = torch.batch_norm_update_stats(x, unused, unused, 0.0)
        dtype = mean.dtype
        mean, var = mean.double(), var.double()  # moments about zero then merge without loss
        local_count = mean.new_full((1,), x.numel() // channels)
        moments = torch.cat([local_count, local_count * mean, local_count * (var + mean**2)])
        sum_amid_computation(moments)
        count, sums, squares = moments.split([1, channels, channels])
        if count <= 1:
            raise ValueError(f"batch norm needs more than one value per channel, got {x.shape}")
        mean = sums / count
        var = (squares / count - mean**2).clamp_min(0)
        mean, var, count = mean.to(dtype), var.to(dtype), count.to(dtype)
        y = normalize(x, weight, bias, mean, var, eps)
        ctx.save_for_backward(x, weight, mean, var, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var, count)
        return y, mean, var, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, var, count = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack([grad_weight, grad_bias])
        sum_amid_computation(sums)
        scale = -(var + ctx.eps).rsqrt() / count
        if weight is not None:
            scale = scale * weight
        grad_x += normalize(x, scale * sums[0], scale * sums[1], mean, var, ctx.eps)
        has_affine = weight is not None
        return grad_x, grad_weight if has_affine else None, grad_bias if has_affine else None, None


def normalize(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float
) -> Tensor:
    return torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, eps)[0]


class ActivationAfter:
    """What timm's ``BatchNormAct2d`` does after the norm."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))  # type: ignore[misc,attr-defined]


class CpuSyncBatchNormAct(ActivationAfter, CpuSyncBatchNorm):
    pass


class CudaSyncBatchNormAct(ActivationAfter, nn.SyncBatchNorm):
    pass


def synchronize_batchnorm(model: nn.Module, device_type: str) -> None:
    """Turn every batch norm of ``model``, in place, into one over all processes.

    Raises:
        ConfigError: a kind of batch norm that has no synchronized form here.
    """
    is_cuda = device_type == "cuda"
    synchronized = dict.fromkeys(PLAIN, nn.SyncBatchNorm if is_cuda else CpuSyncBatchNorm)
    timm = sys.modules.get("timm.layers.norm_act")  # loaded, if the model has any of its layers
    if timm is not None:
        synchronized[timm.BatchNormAct2d] = CudaSyncBatchNormAct if is_cuda else CpuSyncBatchNormAct
    done = set(synchronized.values())
    for name, module in model.named_modules():
        if not isinstance(module, _BatchNorm) or type(module) in done:
            continue
        if type(module) not in synchronized:
            raise ConfigError(
                f"{name} is a {type(module).__name__}, which has no synchronized form: use another "
                "norm, or give trainer.sync_batchnorm=false (statistics per process)"
            )
        module.__class__ = synchronized[type(module)]
        if is_cuda:
            vars(module)["process_group"] = None  # the default group
