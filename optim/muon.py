"""Muon for hidden matrices, AdamW for the rest (kellerjordan.github.io/posts/muon)."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import AdamW, Optimizer

from core.collectives import full_tensor, shard_like
from core.schema import BelowOne, Count
from optim.combined import MatricesAndRest, RestRate

Triple = tuple[float, float, float]

EPS = 1e-7  # added to the norm of the matrix, as in the author's code
RMS_OF_ADAMW = 0.2  # typical RMS of AdamW's update (arXiv:2502.16982, section 2.2)
SAFETY = 1.01  # keeps singular values in the polynomials' interval despite rounding errors
POLAR_EXPRESS: list[Triple] = [  # arXiv:2505.16932, algorithm 1; the last triple repeats
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
]


def rescaled(triple: Triple, factor: float) -> Triple:
    """The polynomial ``a x + b x^3 + c x^5`` of ``x / factor``."""
    a, b, c = triple
    return a / factor, b / factor**3, c / factor**5


COEFFICIENTS: dict[str, list[Triple]] = {
    "jordan": [(3.4445, -4.7750, 2.0315)],
    "polar_express": [
        rescaled(POLAR_EXPRESS[0], SAFETY**2),  # squared: the first also scales the input matrix
        *(rescaled(triple, SAFETY) for triple in POLAR_EXPRESS[1:-1]),
        POLAR_EXPRESS[-1],
    ],
}


class Muon(MatricesAndRest):
    """:class:`OrthogonalMomentum` for the groups with ``use_muon``, torch's AdamW for the others.

    :mod:`optim.parameter_roles` decides which parameters are hidden matrices.

    Args:
        lr: learning rate of both parts.
        adamw_lr: learning rate of AdamW; None: ``lr``.
        momentum: decay of the average of the gradients; Nesterov momentum if ``nesterov``.
        ns_coefficients: ``jordan`` (the author's) or ``polar_express`` (arXiv:2505.16932).
        ns_steps: number of Newton-Schulz iterations.
        scaling: ``spectral`` (the author's) multiplies the update by ``sqrt(max(1, rows /
            columns))``, for his learning rates of 0.02 and, for AdamW, 3e-4. ``rms_match``
            multiplies it by ``0.2 * sqrt(max(rows, columns))``, so that both parts can use AdamW's
            learning rate (arXiv:2502.16982).
        betas, eps: AdamW's settings.
    """

    flag = "use_muon"

    def __init__(
        self,
        params: Any,
        lr: float = 0.003,
        adamw_lr: RestRate = None,
        weight_decay: float = 0.0,
        momentum: BelowOne = 0.95,
        nesterov: bool = True,
        ns_coefficients: Literal["jordan", "polar_express"] = "jordan",
        ns_steps: Count = 5,
        scaling: Literal["spectral", "rms_match"] = "rms_match",
        betas: Annotated[Sequence[BelowOne], Field(min_length=2, max_length=2)] = (0.9, 0.95),
        eps: float = 1e-10,
    ) -> None:
        muon_settings = {
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "ns_steps": ns_steps,
            "scaling": scaling,
        }
        super().__init__(
            params,
            matrices=partial(OrthogonalMomentum, settings=muon_settings),
            rest=partial(AdamW, betas=(betas[0], betas[1]), eps=eps),
            lr=lr,
            weight_decay=weight_decay,
            rest_lr=adamw_lr,
        )


class OrthogonalMomentum(Optimizer):
    """Momentum SGD with orthogonalized updates, for matrices and convolution kernels.

    Kernels are flattened to ``(out_channels, rest)``, those of transposed convolutions to
    ``(in_channels, rest)``.

    Args:
        settings: the arguments of :class:`Muon` that concern matrices.
    """

    def __init__(
        self, params: Any, lr: float, weight_decay: float, settings: dict[str, Any]
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **settings})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, group)

    def update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, momentum = self.state[parameter], group["momentum"]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        gradient, average = parameter.grad, state["momentum_buffer"]
        assert gradient is not None
        average.lerp_(gradient, 1 - momentum)
        direction = gradient.lerp(average, momentum) if group["nesterov"] else average
        triples = COEFFICIENTS[group["ns_coefficients"]]
        update = orthogonal_like(direction, triples, group["ns_steps"])
        scale = update_scale(parameter.shape, group["scaling"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"] * scale)


def orthogonal_like(direction: Tensor, triples: list[Triple], num_steps: int) -> Tensor:
    """The nearest orthogonal matrix, in the shape of ``direction``.

    A tensor sharded by FSDP is gathered on every process, and each keeps its shard of the result.
    """
    full = full_tensor(direction)
    update = newton_schulz(full.flatten(1), triples, num_steps).view(full.shape).type_as(full)
    return shard_like(update, direction)


def newton_schulz(matrix: Tensor, triples: list[Triple], num_steps: int) -> Tensor:
    """Move the singular values of a matrix ``(rows, columns)`` towards 1.

    Applies ``a x + b x^3 + c x^5`` to them ``num_steps`` times; the last triple repeats. Runs in
    bf16 like the author's code, but in fp32 on CPUs: many have no bf16 units, and the results of
    those that do differ.
    """
    x = matrix.float() if matrix.device.type == "cpu" else matrix.bfloat16()
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x  # for the smaller Gram matrix
    x = x / (x.norm() + EPS)
    for i in range(num_steps):
        a, b, c = triples[min(i, len(triples) - 1)]
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if is_tall else x


def update_scale(shape: Sequence[int], scaling: str) -> float:
    """The factor of the orthogonal update of a parameter of this shape."""
    if scaling == "spectral":  # last two sizes, as in the author's code: mostly 1 for kernels
        return math.sqrt(max(1.0, shape[-2] / shape[-1]))
    return RMS_OF_ADAMW * math.sqrt(max(shape[0], math.prod(shape[1:])))
