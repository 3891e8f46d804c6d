"""``param_groups.rules``: settings of parameters by name; the first rule that matches wins."""

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from core.errors import ConfigError
from core.schema import RuleSettings

STATISTICS = "running_mean"  # what a norm without parameters is known by
NAMES_SHOWN = 3  # of the first and of the last


def rules_by_name(module: nn.Module, rules: Sequence[dict[str, Any]]) -> dict[str, RuleSettings]:
    """The rule of every parameter of ``module`` that has one, and of the norms' statistics.

    A parameter with several names, such as an embedding that is also the output layer, has the
    first rule that matches any of them; it stands under all.

    Raises:
        ConfigError: a rule is no regular expression, or has no effect: it matches nothing, or only
            what rules before it match.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for name, buffer in module.named_buffers():
        if name.endswith(STATISTICS):
            names[id(buffer)] = [name]
    found: dict[str, RuleSettings] = {}
    for number, settings in enumerate(rules):
        rule, where = RuleSettings(**settings), f"param_groups.rules[{number}]"
        try:
            pattern = re.compile(rule.match)
        except re.error as error:
            raise ConfigError(f"{where}.match={rule.match}: {error}") from error
        if rule.freeze and (rule.lr_scale != 1 or rule.weight_decay is not None):
            raise ConfigError(f"{where}: what is frozen has no rate and no weight decay")
        matched = [own for own in names.values() if any(map(pattern.search, own))]
        if not matched:
            shown = [name for name, _ in module.named_parameters()]
            if len(shown) > 2 * NAMES_SHOWN:
                shown[NAMES_SHOWN:-NAMES_SHOWN] = ["..."]
            raise ConfigError(
                f"{where}.match={rule.match} matches no parameter's name; there are "
                f"{', '.join(shown)}"
            )
        new = [own for own in matched if own[0] not in found]
        if not new:
            raise ConfigError(
                f"{where}.match={rule.match} has no effect: rules before it match all that it does"
            )
        found |= {name: rule for own in new for name in own}
    return found


def freeze(module: nn.Module, rules: Sequence[dict[str, Any]]) -> list[nn.Module]:
    """Freeze what the rules say, in place; the norms that then keep their statistics.

    A norm keeps them in training too if all of its parameters are frozen, by a rule or by the model
    itself, or if it has none and a rule freezes it by its name.

    Raises:
        ConfigError: see :func:`rules_by_name`.
    """
    frozen = {name for name, rule in rules_by_name(module, rules).items() if rule.freeze}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if name in frozen:
            parameter.requires_grad_(False)
    kept = []
    for name, layer in module.named_modules():
        if getattr(layer, STATISTICS, None) is None:
            continue
        own = list(layer.parameters(recurse=False))
        is_named = f"{name}.{STATISTICS}".removeprefix(".") in frozen
        if is_named if not own else not any(parameter.requires_grad for parameter in own):
            kept.append(layer)
    return kept
