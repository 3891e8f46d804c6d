"""Norms of every layer at logging steps: what Composer's OptimizerMonitor records."""

from collections.abc import Sequence

from torch import Tensor, nn

from core.collectives import full_tensor


def layers_of(module: nn.Module) -> dict[str, list[int]]:
    """The trained parameters of each layer, by their places among all of ``module``'s.

    A layer is a module that has parameters of its own, such as a convolution with its bias.
    """
    layers: dict[str, list[int]] = {}
    trained = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    for place, name in enumerate(trained):
        layers.setdefault(name.rpartition(".")[0] or name, []).append(place)
    return layers


def layer_norms(
    layers: dict[str, list[int]], tensors: Sequence[Tensor | None], prefix: str, name: str
) -> dict[str, Tensor]:
    """The Euclidean norm over each layer's ``tensors``, as ``layers/<layer>/<name>``.

    Args:
        tensors: one for each parameter; None: it has no gradient.
    """
    norms = {}
    for layer, places in layers.items():
        if own := [tensor for place in places if (tensor := tensors[place]) is not None]:
            norms[f"layers/{prefix}{layer}/{name}"] = full_tensor(nn.utils.get_total_norm(own))
    return norms
