"""W&B without the imports that a run does not need: most of a second of a process's time.

They happen in the mirror's thread, but Python runs one thread at a time, so training waits.
"""

import sys
from typing import Any

APPLY_INPUTS = "_detect_and_apply_job_inputs"


def leave_unused_out() -> None:
    """Keep the imported W&B from importing its launch agent, and pandas.

    A run asks the agent for inputs that were staged before it began: where nobody imported it,
    nobody staged any. pandas is imported to see whether a value is a data frame: without it, W&B
    goes by the name of the value's type, as it does where pandas is not installed. In a W&B that is
    built otherwise nothing changes, and the imports are back.
    """
    if util := sys.modules.get("wandb.util"):
        util.__dict__["pd_available"] = False
    run_class = getattr(sys.modules.get("wandb.sdk.wandb_run"), "Run", None)
    apply_inputs = getattr(run_class, APPLY_INPUTS, None)
    if apply_inputs is None or apply_inputs.__module__ == __name__:
        return

    def apply_staged_inputs(run: Any) -> None:
        if "wandb.sdk.launch" in sys.modules:
            apply_inputs(run)

    setattr(run_class, APPLY_INPUTS, apply_staged_inputs)
