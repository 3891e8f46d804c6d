"""Two optimizers in one, such as ``optimizer=torch_muon``: torch's Muon plus AdamW."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch.optim import Optimizer

RestRate = Annotated[float | None, Field(ge=0, allow_inf_nan=False)]  # null: the same as lr


class MatricesAndRest(Optimizer):
    """``matrices`` updates the hidden matrices, ``rest`` everything else.

    Both share their parameter groups and state with this optimizer, so that schedules and
    checkpoints cover both.

    Args:
        params: parameter groups; the boolean :attr:`flag` of each assigns it to ``matrices``.
        matrices, rest: factories that take groups, ``lr`` and ``weight_decay``.
        lr: learning rate of both.
        rest_lr: learning rate of ``rest``; None: ``lr``.

    Raises:
        ValueError: if ``matrices`` or ``rest`` is not a factory, or wraps another optimizer.
    """

    flag: ClassVar[str] = "is_matrix"

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        matrices: Callable[..., Optimizer],
        rest: Callable[..., Optimizer],
        lr: float,
        weight_decay: float = 0.0,
        rest_lr: RestRate = None,
    ) -> None:
        for name, build in (("matrices", matrices), ("rest", rest)):
            if not callable(build):
                raise ValueError(f"{name}={build} should be an optimizer node with _partial_: true")
        groups = list(params)
        if rest_lr is not None:
            for group in groups:
                if not group[self.flag]:
                    group["lr"] = rest_lr * (group.get("lr", lr) / lr if lr else 1.0)
        self.parts: dict[bool, Optimizer] = {}
        for takes_matrices, build in ((True, matrices), (False, rest)):
            part_groups = [group for group in groups if group[self.flag] == takes_matrices]
            if part_groups:
                part = build(part_groups, lr=lr, weight_decay=weight_decay)
                if any(isinstance(value, Optimizer) for value in vars(part).values()):
                    raise ValueError(
                        f"{type(part).__name__} wraps another optimizer, whose state would not be "
                        "shared: it cannot be matrices or rest"
                    )
                self.parts[takes_matrices] = part
        super().__init__(self.collect_groups(groups), {"lr": lr, "weight_decay": weight_decay})
        self.share_state()

    def collect_groups(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The parts' own copies of ``groups``, in the same order."""
        iterators = {key: iter(part.param_groups) for key, part in self.parts.items()}
        return [next(iterators[group[self.flag]]) for group in groups]

    def share_state(self) -> None:
        """Make both parts refer to the groups and the state of this optimizer."""
        for key, part in self.parts.items():
            part.param_groups = [group for group in self.param_groups if group[self.flag] == key]
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts.values():
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load each part with its own method: some restore dtypes that torch's would cast."""
        saved = state_dict["param_groups"]
        state: defaultdict[Any, Any] = defaultdict(dict)
        for key, part in self.parts.items():
            groups = [group for group in saved if group[self.flag] == key]
            others = {i for group in saved if group[self.flag] != key for i in group["params"]}
            part_state = {i: value for i, value in state_dict["state"].items() if i not in others}
            part.load_state_dict({"state": part_state, "param_groups": groups})
            state |= part.state
        self.param_groups = self.collect_groups(saved)
        self.state = state
        self.share_state()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "parts": self.parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Called by ``copy`` and ``pickle``."""
        super().__setstate__(state)
        self.share_state()
