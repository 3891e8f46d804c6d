"""torch's optimizers without their preparations for ``torch.compile``.

Two fifths of a start: ``debug=fast`` with W&B off takes 5.3 s of CPU time with this file and 8.8 s
without (medians; ``import torch`` 3.5 s; torch 2.14.1, AMD EPYC, one thread, n = 3 in turns on a
busy machine; ``benchmarks/start.py`` measures it). Processes under DDP gain nothing: torch's own
module imports the compiler.

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
    """Keep torch's optimizers from importing the compiler, over a second of every start.

    Their methods tell the compiler where not to look, and import it to do so even where nothing is
    compiled. This program compiles models, never optimizers: nobody listens, and the methods become
    what they wrap. In a torch that is built otherwise nothing changes, and the import is back.
    """
    if not hasattr(torch, "_compile"):
        return
    for method in vars(Optimizer).values():  # zero_grad, state_dict, ...
        if inspect.isfunction(method):
            plain: Any = inspect.unwrap(method)
            plain.__dynamo_disable = plain  # where the wrapper keeps what it calls
    for optimizer in Optimizer.__subclasses__():
        step = vars(optimizer).get("step")
        if optimizer.__module__.startswith("torch.optim.") and inspect.isfunction(step):
            optimizer.step = torch.no_grad()(inspect.unwrap(step))  # type: ignore[method-assign]
