"""Muon for hidden matrices, AdamW for everything else (kellerjordan.github.io/posts/muon)."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from optim.combined import MatricesAndRest

Triple = tuple[float, float, float]

EPS = 1e-7  # of the norm before the iterations, as in the author's code
RMS_OF_ADAMW = 0.2  # typical size of an entry of AdamW's update (arXiv:2502.16982, section 2.2)
SAFETY = 1.01  # keeps rounding errors inside the interval for which the polynomials are made
PAPER: list[Triple] = [  # arXiv:2505.16932, algorithm 1; all further ones equal the last
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
]


def shrunk(triple: Triple, factor: float) -> Triple:
    """The polynomial ``a x + b x^3 + c x^5`` of ``x / factor``."""
    a, b, c = triple
    return a / factor, b / factor**3, c / factor**5


COEFFICIENTS: dict[str, list[Triple]] = {
    "jordan": [(3.4445, -4.7750, 2.0315)],
    "polar_express": [
        shrunk(PAPER[0], SAFETY**2),  # once for the matrix itself, which it is the first to meet
        *(shrunk(triple, SAFETY) for triple in PAPER[1:-1]),
        PAPER[-1],
    ],
}


class Muon(MatricesAndRest):
    """:class:`OrthogonalMomentum` for the groups with ``use_muon``, torch's AdamW for the others.

    Which parameter is in which, :mod:`optim.parameter_roles` says.

    Args:
        lr: of both parts.
        adamw_lr: of AdamW's part; None: ``lr``.
        momentum: of an average of the gradients, with Nesterov's look ahead if ``nesterov``.
        ns_coefficients: ``jordan``, the author's, or ``polar_express`` (arXiv:2505.16932).
        ns_steps: Newton-Schulz iterations.
        scaling: ``spectral``, the author's: the step times ``sqrt(max(1, rows / columns))``; goes
            with his rates, 0.02 and 3e-4 for AdamW. ``rms_match``: times ``0.2 * sqrt(max(rows,
            columns))``, so that one rate, on AdamW's scale, suits both parts (arXiv:2502.16982).
        betas, eps: of AdamW's part.

    Raises:
        ValueError: a setting is out of range.
    """

    flag = "use_muon"

    def __init__(
        self,
        params: Any,
        lr: float = 0.003,
        adamw_lr: float | None = None,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: str = "jordan",
        ns_steps: int = 5,
        scaling: Literal["spectral", "rms_match"] = "rms_match",
        betas: Sequence[float] = (0.9, 0.95),
        eps: float = 1e-10,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum} should be in [0, 1)")
        if ns_coefficients not in COEFFICIENTS:
            raise ValueError(f"ns_coefficients={ns_coefficients} should be jordan or polar_express")
        if ns_steps < 1:
            raise ValueError(f"ns_steps={ns_steps} should be at least 1")
        if scaling not in ("spectral", "rms_match"):
            raise ValueError(f"scaling={scaling} should be spectral or rms_match")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas={betas} should be two numbers in [0, 1)")
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
    """Momentum whose direction is made orthogonal, of matrices and convolution kernels.

    Kernels are flattened after their first dimension: ``(out_channels, rest)``, of transposed
    convolutions ``(in_channels, rest)``.

    Args:
        settings: those of :class:`Muon`'s arguments that are about its matrices.
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


def orthogonal_like(direction: Any, triples: list[Triple], num_steps: int) -> Tensor:
    """The orthogonal matrix next to ``direction``, in its shape.

    Of a tensor that FSDP has sharded, every process gathers the whole and keeps its share.
    """
    is_sharded = hasattr(direction, "full_tensor")
    whole = direction.full_tensor() if is_sharded else direction
    update = newton_schulz(whole.flatten(1), triples, num_steps).view(whole.shape).type_as(whole)
    if not is_sharded:
        return update
    from torch.distributed.tensor import distribute_tensor  # costs a second

    mesh, placements = direction.device_mesh, direction.placements
    return distribute_tensor(update, mesh, placements, src_data_rank=None)


def newton_schulz(matrix: Tensor, triples: list[Triple], num_steps: int) -> Tensor:
    """``(rows, columns)`` with its singular values moved towards 1.

    The singular values become those of ``a x + b x^3 + c x^5``, applied ``num_steps`` times; the
    last triple is repeated. In bf16 as the author does it, on CPUs in fp32: many have no bf16
    units, and those that have do not agree.
    """
    x = matrix.float() if matrix.device.type == "cpu" else matrix.bfloat16()
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x  # the smaller product
    x = x / (x.norm() + EPS)
    for i in range(num_steps):
        a, b, c = triples[min(i, len(triples) - 1)]
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if is_tall else x


def update_scale(shape: Sequence[int], scaling: str) -> float:
    """What the orthogonal update of a parameter of this shape is multiplied by."""
    if scaling == "spectral":  # of a kernel's last two sizes, as in the author's code: mostly 1
        return math.sqrt(max(1.0, shape[-2] / shape[-1]))
    return RMS_OF_ADAMW * math.sqrt(max(shape[0], math.prod(shape[1:])))
