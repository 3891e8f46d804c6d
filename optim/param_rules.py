"""``param_groups.rules``: per-parameter settings by name; the first matching rule wins."""

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from core.errors import ConfigError
from core.schema import RuleSettings

STATISTICS = "running_mean"  # identifies norms, also those without parameters
NAMES_SHOWN = 3  # first and last parameter names listed in a message


def rules_by_id(module: nn.Module, rules: Sequence[dict[str, Any]]) -> dict[int, RuleSettings]:
    """The rule of each parameter and each norm's running mean that has one, by its ``id``.

    A parameter with several names, such as tied embeddings, gets the first rule that matches any of
    them.

    Raises:
        ConfigError: if a rule is not a regular expression, or has no effect: it matches nothing, or
            only names matched by earlier rules.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for name, buffer in module.named_buffers():
        if name.endswith(STATISTICS):
            names[id(buffer)] = [name]
    rule_of: dict[int, RuleSettings] = {}
    for number, settings in enumerate(rules):
        rule, where = RuleSettings(**settings), f"param_groups.rules[{number}]"
        try:
            pattern = re.compile(rule.match)
        except re.error as error:
            raise ConfigError(f"{where}.match={rule.match}: {error}") from error
        if rule.freeze and (rule.lr_scale != 1 or rule.weight_decay is not None):
            raise ConfigError(f"{where}: freeze excludes lr_scale and weight_decay")
        matched = [key for key, aliases in names.items() if any(map(pattern.search, aliases))]
        if not matched:
            shown = [name for name, _ in module.named_parameters()]
            if len(shown) > 2 * NAMES_SHOWN:
                shown[NAMES_SHOWN:-NAMES_SHOWN] = ["..."]
            raise ConfigError(
                f"{where}.match={rule.match} matches no parameter's name; there are "
                f"{', '.join(shown)}"
            )
        unclaimed = [key for key in matched if key not in rule_of]
        if not unclaimed:
            raise ConfigError(
                f"{where}.match={rule.match} has no effect: earlier rules match the same names"
            )
        rule_of |= dict.fromkeys(unclaimed, rule)
    return rule_of


def freeze(module: nn.Module, rules: Sequence[dict[str, Any]]) -> list[nn.Module]:
    """Freeze parameters by the rules, in place; returns the norms with frozen running statistics.

    A norm's running statistics are frozen if all its parameters are frozen, by a rule or by the
    model itself, or if it has none and a rule with ``freeze`` matches its name.

    Raises:
        ConfigError: see :func:`rules_by_id`.
    """
    frozen = {key for key, rule in rules_by_id(module, rules).items() if rule.freeze}
    for parameter in module.parameters():
        if id(parameter) in frozen:
            parameter.requires_grad_(False)
    frozen_norms = []
    for layer in module.modules():
        mean = getattr(layer, STATISTICS, None)
        if mean is None:
            continue
        parameters = list(layer.parameters(recurse=False))
        is_frozen = not any(parameter.requires_grad for parameter in parameters)
        if is_frozen if parameters else id(mean) in frozen:
            frozen_norms.append(layer)
    return frozen_norms
