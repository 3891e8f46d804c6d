"""Parameter groups: which parameters get weight decay, and which a scaled learning rate."""

from typing import Any

from torch import nn

NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


def parameter_groups(
    module: nn.Module, weight_decay: float, decay_norms_and_biases: bool
) -> list[dict[str, Any]]:
    """Split ``module``'s trainable parameters into decayed and undecayed groups.

    Without ``decay_norms_and_biases``, whatever belongs to a normalization layer, is a bias, or
    has fewer than two dimensions (scales, class tokens) is not decayed, as is usual since
    arXiv:1812.01187. Every trainable parameter is in exactly one group.
    """
    undecayed_ids = set()
    if not decay_norms_and_biases:
        for submodule in module.modules():
            for name, parameter in submodule.named_parameters(recurse=False):
                if isinstance(submodule, NORMS) or name.endswith("bias") or parameter.ndim < 2:
                    undecayed_ids.add(id(parameter))
    trainable = [p for p in module.parameters() if p.requires_grad]
    decayed = [p for p in trainable if id(p) not in undecayed_ids]
    undecayed = [p for p in trainable if id(p) in undecayed_ids]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": undecayed, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
