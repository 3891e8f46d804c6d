"""Parameter groups: weight decay and learning-rate scale of each parameter."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from core.errors import ConfigError
from core.schema import RuleSettings
from optim.param_rules import rules_by_id
from optim.parameter_roles import hidden_matrices, undecayed

NO_RULE = RuleSettings(match="")
BLOCK = re.compile(r"^(.*?)\.(\d+)\.")  # "encoder.layer.3.output.weight": block 3 of encoder.layer


def parameter_groups(
    module: nn.Module,
    weight_decay: float,
    lr: float,
    decay_norms_and_biases: bool,
    layer_decay: float | None,
    not_hidden: Sequence[str] = (),
    rules: Sequence[dict[str, Any]] = (),
    root: nn.Module | None = None,
    flags: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Split ``module``'s trainable parameters into groups; each is in exactly one.

    Unless ``decay_norms_and_biases``, the parameters of :func:`optim.parameter_roles.undecayed` get
    no weight decay, as is usual since arXiv:1812.01187.

    Args:
        lr: rate of the top layer; groups have ``lr`` only with ``layer_decay`` or ``lr_scale``.
        layer_decay: learning-rate factor from each layer to the one below it (arXiv:2003.10555).
        not_hidden: see :func:`optim.parameter_roles.hidden_matrices`.
        rules: see :func:`optim.param_rules.rules_by_id`.
        root: the model whose parameter names the rules match; None: ``module``.
        flags: boolean entries that the optimizer reads from a group: ``use_muon`` (hidden
            matrices), ``is_matrix`` (the same, without convolution kernels) or ``always_adapt``
            (subject to weight decay, even of 0).

    Raises:
        ConfigError: if there is ``layer_decay`` and the module has no numbered layers, or an
            optimizer for hidden matrices finds none.
    """
    everything = {id(parameter) for parameter in module.parameters()}
    decayed = everything if decay_norms_and_biases else everything - undecayed(module)
    members = {"always_adapt": decayed}
    for flag in {"use_muon", "is_matrix"}.intersection(flags):
        members[flag] = hidden_matrices(module, not_hidden, kernels=flag == "use_muon")
        if not members[flag]:
            raise ConfigError(
                f"{type(module).__name__} has no hidden matrices for Muon between its first and "
                "last layers: choose another optimizer (only optimizer=muon also takes convolution "
                "kernels)"
            )
    scales = {} if layer_decay is None else layer_scales(module, layer_decay)
    rule_of = rules_by_id(root or module, rules)
    has_rates = layer_decay is not None or any(rule.lr_scale != 1 for rule in rule_of.values())
    groups: dict[tuple[float, ...], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        rule = rule_of.get(id(parameter), NO_RULE)
        scale = scales.get(name, 1.0) * rule.lr_scale
        decay = weight_decay if id(parameter) in decayed else 0.0
        if rule.weight_decay is not None:
            decay = rule.weight_decay
        group: dict[str, Any] = {"params": [], "param_names": [], "weight_decay": decay}
        if has_rates:
            group["lr"] = lr * scale
        if rule.lr_scale != 1:
            group["lr_scale"] = rule.lr_scale
        group |= {flag: id(parameter) in members[flag] for flag in flags}
        is_usual = rule.lr_scale == 1
        key = (is_usual, scale, *(group[flag] for flag in flags), decay, id(parameter) in decayed)
        group = groups.setdefault(key, group)
        group["params"].append(parameter)
        group["param_names"].append(name)  # torch's key; some optimizers read it
    # the top layer's group comes first: its learning rate is logged
    return [groups[key] for key in sorted(groups, reverse=True)]


def layer_scales(module: nn.Module, layer_decay: float) -> dict[str, float]:
    """The learning-rate factor of each trainable parameter, by name.

    A model with timm's ``group_matcher`` defines its layers. Otherwise, the layers are the stack of
    numbered blocks with the most trainable parameters, such as ``encoder.layer.3.`` or
    ``blocks.3.``. Parameters before it, such as embeddings, form a layer below the first block;
    those after it, such as the classifier, form a layer above the last.
    """
    if hasattr(module, "group_matcher"):
        from timm.models import group_parameters  # takes seconds to import; timm made the model

        matcher = module.group_matcher(coarse=False)  # type: ignore[operator]
        layers: dict[str, int] = group_parameters(module, matcher, reverse=True)
        last = max(layers.values())
        return {name: layer_decay ** (last - layer) for name, layer in layers.items()}
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    sizes: Counter[str] = Counter()
    for name, parameter in trained:
        if block := BLOCK.match(name):
            sizes[block[1]] += parameter.numel()
    if not sizes:
        raise ConfigError(
            f"param_groups.layer_decay={layer_decay}: {type(module).__name__} has no numbered "
            "layers to train; set it to null"
        )
    stack = sizes.most_common(1)[0][0]
    depths, depth = {}, 0
    for name, _ in trained:
        block = BLOCK.match(name)
        if block and block[1] == stack:
            depth = int(block[2]) + 1
            depths[name] = depth
        else:
            depths[name] = 0 if depth == 0 else -1  # -1: after the blocks
    top = max(depths.values()) + 1
    return {name: layer_decay ** (0 if d < 0 else top - d) for name, d in depths.items()}
