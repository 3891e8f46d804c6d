"""Roles of parameters that optimizers treat differently: undecayed, hidden matrices."""

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch

from torch import Tensor, nn

from core.errors import ConfigError

NORMS = (nn.LayerNorm, nn.RMSNorm)  # the parameters of other norms are one-dimensional anyway
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
POSITIONS = re.compile(r"pos(ition)?(al)?_?embed|position_bias")


def undecayed(module: nn.Module) -> set[int]:
    """The ids of the parameters without weight decay.

    These are biases, normalization layers, class tokens, position embeddings and scales (parameters
    with fewer than two dimensions, or not named ``weight`` and with a broadcast dimension of size
    1), and those listed by timm's ``no_weight_decay()`` of the model or a submodule.
    """
    ids = set()
    for prefix, submodule in module.named_modules():
        for name, parameter in submodule.named_parameters(recurse=False):
            is_repeated = not is_weight(name) and 1 in parameter.shape
            if (
                isinstance(submodule, NORMS)
                or name.endswith("bias")
                or parameter.ndim < 2
                or is_repeated
                or POSITIONS.search(f"{prefix}.{name}")
            ):
                ids.add(id(parameter))
        if hasattr(submodule, "no_weight_decay"):
            patterns = [str(pattern) for pattern in submodule.no_weight_decay()]
            for name, parameter in submodule.named_parameters():
                if any(fnmatch(name, pattern) for pattern in patterns):
                    ids.add(id(parameter))
    return ids


def hidden_matrices(module: nn.Module, not_hidden: Sequence[str], kernels: bool = True) -> set[int]:
    """The ids of the weights of hidden layers: matrices and convolution kernels.

    Excludes embeddings, the first and the last layer, weights tied to any of these, everything
    :func:`undecayed`, and depthwise kernels (one input channel). First and last refer to the order
    in which the model registers its layers.

    Args:
        not_hidden: regular expressions on the names of further parameters to exclude.
        kernels: whether to include convolution kernels.

    Raises:
        ConfigError: if an expression is invalid or matches no parameter.
    """
    layers = list(weight_matrices(module))
    excluded = [weight for layer, weight in layers if isinstance(layer, EMBEDDINGS)]
    excluded += [weight for _, weight in layers[:1] + layers[-1:]]
    for pattern in not_hidden:
        try:
            matched = [p for name, p in module.named_parameters() if re.search(pattern, name)]
        except re.error as error:
            raise ConfigError(f"param_groups.not_hidden={pattern}: {error}") from error
        if not matched:
            raise ConfigError(f"param_groups.not_hidden={pattern} matches no parameter's name")
        excluded += matched
    excluded_ids = {id(parameter) for parameter in excluded} | undecayed(module)
    return {
        id(weight)
        for _, weight in layers
        if id(weight) not in excluded_ids
        and (weight.ndim == 2 or (kernels and weight.shape[1] > 1))
    }


def weight_matrices(module: nn.Module) -> Iterator[tuple[nn.Module, Tensor]]:
    """Every ``(layer, weight)`` whose weight has at least two dimensions."""
    for submodule in module.modules():
        for name, parameter in submodule.named_parameters(recurse=False):
            if parameter.ndim >= 2 and is_weight(name):
                yield submodule, parameter


def is_weight(name: str) -> bool:
    """Whether a parameter is named like ``weight``, ``weight_ih_l0`` or ``in_proj_weight``."""
    return name.startswith("weight") or name.endswith("weight")
