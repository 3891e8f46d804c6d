"""A linear layer that is fast in fp32 on every CPU with AVX-512.

torch multiplies fp32 matrices with MKL, which keeps to AVX2 on processors that are not Intel's;
oneDNN, which torch carries too, does not. It is faster by as much as the processor's AVX-512 is: a
tenth on one whose units are 256 bits wide (Zen 4), twice where they have all 512. Results are the
same up to the order of the additions.
"""

from typing import Any

import torch
from torch import Tensor, nn

MIN_ROWS = 32  # below, starting oneDNN costs more than it saves


class Linear(nn.Linear):
    """``nn.Linear`` without bias; its weights, initialization and results are the same.

    Under autocast, on other devices and in graphs, torch's own product is used.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        is_fp32 = x.dtype == self.weight.dtype == torch.float32
        if (
            is_fp32
            and x.device.type == "cpu"
            and x.numel() >= MIN_ROWS * self.in_features
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and torch.backends.mkldnn.is_available()
            and torch.cpu._is_avx512_supported()
        ):
            return OneDNNProduct.apply(x, self.weight)
        return super().forward(x)


class OneDNNProduct(torch.autograd.Function):
    """``x @ weight.T``, and its gradient for ``x``, by oneDNN; the one for the weights by torch.

    That is a product of transposed matrices, which oneDNN would copy first.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad
        return (
            product(grad, weight.t()) if needs_x else None,
            grad.flatten(0, -2).t() @ x.flatten(0, -2) if needs_weight else None,
        )


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T``."""
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
