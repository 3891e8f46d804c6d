"""Keeps torch's optimizers from importing the compiler, which saves 40 % of the start-up time.

``debug=fast`` with W&B off takes 5.3 s of CPU time with this file and 8.8 s without (medians;
``import torch`` 3.5 s; torch 2.14.1, AMD EPYC, one thread, n = 3 alternating on a busy machine;
see ``benchmarks/start.py``). DDP processes gain nothing, since torch's DDP module itself imports
the compiler.

To report to torch: "Using any ``torch.optim`` optimizer imports ``torch._dynamo``, though nothing
is compiled: ``torch._disable_dynamo`` imports it at the first call of what it wraps
(``add_param_group``, ``zero_grad``, ``state_dict``, ...), and ``step`` does so to break the graph.
It adds seconds to every short script. Could both look whether ``torch._dynamo`` has been imported
already, and call the plain function where it has not?"
"""

import inspect
from typing import Any

import torch
from torch.optim import Optimizer


def leave_compiler_out() -> None:
    """Unwrap ``torch._disable_dynamo`` from the methods of torch's optimizers.

    The wrappers exclude the methods from compilation and import ``torch._dynamo`` to do so, even if
    nothing is compiled. This program compiles models but never optimizers, so they are not needed.
    A no-op if a future torch has no such wrappers.
    """
    if not hasattr(torch, "_compile"):
        return
    for method in vars(Optimizer).values():  # zero_grad, state_dict, ...
        if inspect.isfunction(method):
            plain: Any = inspect.unwrap(method)
            plain.__dynamo_disable = plain  # the wrapper's cached function
    for optimizer in Optimizer.__subclasses__():
        step = vars(optimizer).get("step")
        if optimizer.__module__.startswith("torch.optim.") and inspect.isfunction(step):
            optimizer.step = torch.no_grad()(inspect.unwrap(step))  # type: ignore[method-assign]
