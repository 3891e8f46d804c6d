"""Two optimizers as one: ``optimizer=torch_muon`` is torch's Muon and, for the rest, AdamW."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch.optim import Optimizer


class MatricesAndRest(Optimizer):
    """``matrices`` updates the hidden matrices, ``rest`` everything else.

    The two share their groups and their state with this optimizer, so that schedules reach both and
    a checkpoint holds both.

    Args:
        params: groups, each of which says by :attr:`flag` whose it is.
        matrices, rest: called with groups, ``lr`` and ``weight_decay``; they make an optimizer.
        lr: of both.
        rest_lr: of ``rest``; None: ``lr``.
    """

    flag: ClassVar[str] = "is_matrix"

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        matrices: Callable[..., Optimizer],
        rest: Callable[..., Optimizer],
        lr: float,
        weight_decay: float = 0.0,
        rest_lr: float | None = None,
    ) -> None:
        groups = list(params)
        if rest_lr is not None:
            for group in groups:
                if not group[self.flag]:
                    group["lr"] = rest_lr * (group.get("lr", lr) / lr if lr else 1.0)
        self.parts: dict[bool, Optimizer] = {}
        for takes_matrices, build in ((True, matrices), (False, rest)):
            own = [group for group in groups if group[self.flag] == takes_matrices]
            if own:
                self.parts[takes_matrices] = build(own, lr=lr, weight_decay=weight_decay)
        made = {key: iter(part.param_groups) for key, part in self.parts.items()}
        in_order = [next(made[group[self.flag]]) for group in groups]
        super().__init__(in_order, {"lr": lr, "weight_decay": weight_decay})
        self.share()

    def share(self) -> None:
        """Let the two work on the groups and the state of this optimizer."""
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

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "parts": self.parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Called by copies, and by :meth:`load_state_dict` with new groups and a new state."""
        super().__setstate__(state)
        self.share()
