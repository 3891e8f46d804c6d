"""torch's optimizers without their preparations for ``torch.compile``."""

import inspect
from typing import Any

import torch
from torch.optim import Optimizer


def leave_compiler_out() -> None:
    """Keep torch's optimizers from importing the compiler, over a second of every start.

    Their methods tell the compiler where not to look, and import it to do so even where nothing is
    compiled. This program compiles models, never optimizers: nobody listens, and the methods become
    what they wrap. In a torch that is built otherwise nothing changes, and the import is back.
    """
    for method in vars(Optimizer).values():  # zero_grad, state_dict, ...
        if inspect.isfunction(method):
            plain: Any = inspect.unwrap(method)
            plain.__dynamo_disable = plain  # where the wrapper keeps what it calls
    for optimizer in Optimizer.__subclasses__():
        step = vars(optimizer).get("step")
        if optimizer.__module__.startswith("torch.optim.") and inspect.isfunction(step):
            optimizer.step = torch.no_grad()(inspect.unwrap(step))  # type: ignore[method-assign]
