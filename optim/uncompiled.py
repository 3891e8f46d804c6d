"""torch's optimizers without their preparations for ``torch.compile``."""

from typing import Any

import torch
from torch.optim import Optimizer


def leave_compiler_out() -> None:
    """Keep torch's optimizers from importing ``torch._dynamo``, over a second of every start.

    Their methods tell the compiler where not to look, and import it to do so even where nothing is
    compiled. This program compiles models, never optimizers: nobody listens, and the methods become
    what they wrap. In a torch that is built otherwise nothing changes, and the import is back.
    """
    for method in vars(Optimizer).values():  # zero_grad, state_dict, ...
        if getattr(method, "__globals__", None) is vars(torch._compile):
            plain = method.__wrapped__
            plain.__dynamo_disable = plain  # where the wrapper keeps what it calls
    for optimizer in Optimizer.__subclasses__():
        step: Any = vars(optimizer).get("step")
        if getattr(getattr(step, "__code__", None), "co_name", None) == "_use_grad":
            optimizer.step = torch.no_grad()(step.__wrapped__)  # type: ignore[method-assign]
