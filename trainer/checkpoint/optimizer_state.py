"""Optimizer state keyed by parameter name, so that it can be loaded into other parameter groups.

Settings (learning rate, weight decay, momentum, betas) are not saved. They come from the config, so
that a resumed run trains with the settings it records.
"""

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from core.collectives import shard_like

NOT_STATE = ("params", "lr")  # the schedule sets the rate at every update


class OptimizerState:
    """Saves and restores the state of a newly built ``optimizer`` over ``module``.

    A few optimizers keep state in their parameter groups, such as the step count of schedule-free
    ones. Entries that have changed since construction are state, the others settings.

    Args:
        scheduled: settings that a schedule changes, which are not state either.
    """

    def __init__(
        self, optimizer: Optimizer, module: nn.Module, scheduled: Sequence[str] = ()
    ) -> None:
        self.not_state = (*NOT_STATE, *scheduled)
        self.optimizer = optimizer
        by_id = {id(p): name for name, p in module.named_parameters()}
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.names = [by_id[id(parameter)] for parameter in self.parameters]
        self.settings = [
            {key: copy.deepcopy(value) for key, value in group.items() if key not in self.not_state}
            for group in optimizer.param_groups
        ]

    @property
    def kind(self) -> str:
        """The optimizer's qualified class name, to compare with that of a saved state."""
        return f"{type(self.optimizer).__module__}.{type(self.optimizer).__qualname__}"

    def state_dict(self) -> dict[str, Any]:
        """The state, with the tensors themselves; under FSDP, this process's shards."""
        content = self.optimizer.state_dict()
        state = {
            key: saved  # entries that belong to no parameter
            for key, saved in content["state"].items()
            if not isinstance(key, int)
        }
        for index, name in enumerate(self.names):
            param_state = content["state"].get(index, {})
            if param_state:
                state[name] = param_state
        groups = [
            {
                "params": [self.names[index] for index in group["params"]],
                **self.changes(group, settings),
            }
            for group, settings in zip(content["param_groups"], self.settings, strict=True)
        ]
        return {**content, "class": self.kind, "state": state, "param_groups": groups}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Load the unsharded state that :meth:`state_dict` of the same class returned."""
        indices = {name: index for index, name in enumerate(self.names)}
        saved_group = {name: group for group in content["param_groups"] for name in group["params"]}
        state = {}
        for name, saved in content["state"].items():
            if name in indices:
                index = indices[name]
                state[index] = {
                    key: share_of(value, self.parameters[index]) for key, value in saved.items()
                }
            elif name not in saved_group:  # belongs to no parameter
                state[name] = saved
        groups = self.optimizer.state_dict()["param_groups"]
        for group in groups:
            saved = saved_group.get(self.names[group["params"][0]], {})
            group |= {key: value for key, value in saved.items() if key not in self.not_state}
        rest = {key: value for key, value in content.items() if key != "class"}
        self.optimizer.load_state_dict({**rest, "state": state, "param_groups": groups})

    def changes(self, group: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        """The entries of a parameter group that training has changed."""
        return {
            key: value
            for key, value in group.items()
            if key not in self.not_state
            and (isinstance(value, Tensor) or key not in settings or value != settings[key])
        }


def share_of(value: Any, parameter: Tensor) -> Any:
    """``value``, sharded like ``parameter`` if it has its shape and FSDP has sharded that."""
    has_same_shape = isinstance(value, Tensor) and value.shape == parameter.shape
    return shard_like(value, parameter) if has_same_shape else value
