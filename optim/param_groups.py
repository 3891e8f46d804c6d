"""Parameter groups: which parameters get weight decay, and which a scaled learning rate."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from core.errors import ConfigError
from optim.parameter_roles import hidden_matrices, undecayed

BLOCK = re.compile(r"^(.*?)\.(\d+)\.")  # "encoder.layer.3.output.weight": block 3 of encoder.layer


def parameter_groups(
    module: nn.Module,
    weight_decay: float,
    lr: float,
    decay_norms_and_biases: bool,
    layer_decay: float | None,
    not_hidden: Sequence[str] = (),
    flags: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Split ``module``'s trainable parameters into groups; each is in exactly one.

    Without ``decay_norms_and_biases``, what :func:`optim.parameter_roles.undecayed` lists is not
    decayed, as is usual since arXiv:1812.01187.

    Args:
        lr: the rate of the top layer; without ``layer_decay`` the groups have none of their own.
        layer_decay: factor of the rate from each layer to the one below it (arXiv:2003.10555).
        not_hidden: see :func:`optim.parameter_roles.hidden_matrices`.
        flags: what the optimizer reads of a group: ``use_muon`` (it holds hidden matrices) or
            ``always_adapt`` (it is decayed, if only by 0).

    Raises:
        ConfigError: ``layer_decay`` is no such factor, or the module has no numbered layers or,
            for ``use_muon``, no hidden matrices.
    """
    everything = {id(parameter) for parameter in module.parameters()}
    decayed = everything if decay_norms_and_biases else everything - undecayed(module)
    members = {"always_adapt": decayed}
    if "use_muon" in flags:
        members["use_muon"] = hidden_matrices(module, not_hidden)
        if not members["use_muon"]:
            raise ConfigError(
                f"Muon is for the matrices of hidden layers, and {type(module).__name__} has none "
                "between its first and its last layer: choose another optimizer"
            )
    scales = {} if layer_decay is None else layer_scales(module, layer_decay)
    groups: dict[tuple[float, ...], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        scale, decays = scales.get(name, 1.0), id(parameter) in decayed
        group: dict[str, Any] = {"params": [], "weight_decay": weight_decay if decays else 0.0}
        if layer_decay is not None:
            group["lr"] = lr * scale
        group |= {flag: id(parameter) in members[flag] for flag in flags}
        key = (scale, *(group[flag] for flag in flags), decays)
        groups.setdefault(key, group)["params"].append(parameter)
    # the top layer's group comes first: its rate is the one that is logged
    return [groups[key] for key in sorted(groups, reverse=True)]


def layer_scales(module: nn.Module, layer_decay: float) -> dict[str, float]:
    """The factor of every trained parameter's learning rate, by name.

    The layers are the numbered blocks that hold most of the trained parameters, such as
    ``encoder.layer.3.`` or ``blocks.3.``. What comes before them, such as embeddings, is one layer
    below the first block; what comes after, such as the classifier, one above the last block.
    """
    if not 0 < layer_decay <= 1:
        raise ConfigError(f"param_groups.layer_decay={layer_decay} should be above 0, at most 1")
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    sizes: Counter[str] = Counter()
    for name, parameter in trained:
        if found := BLOCK.match(name):
            sizes[found[1]] += parameter.numel()
    if not sizes:
        raise ConfigError(
            f"param_groups.layer_decay={layer_decay}: {type(module).__name__} has no numbered "
            "layers to train; set it to null"
        )
    stack = sizes.most_common(1)[0][0]
    depths, depth = {}, 0
    for name, _ in trained:
        found = BLOCK.match(name)
        if found and found[1] == stack:
            depth = int(found[2]) + 1
            depths[name] = depth
        else:
            depths[name] = 0 if depth == 0 else -1  # -1: after the blocks
    top = max(depths.values()) + 1
    return {name: layer_decay ** (0 if d < 0 else top - d) for name, d in depths.items()}
