"""W&B without the imports that a run does not need: most of a second of a process's time.

They happen in the mirror's thread, but Python runs one thread at a time, so training waits.
"""

import sys
from typing import Any

APPLY_INPUTS = "_detect_and_apply_job_inputs"
IS_DATA_FRAME = "is_pandas_data_frame"


def leave_unused_out() -> None:
    """Keep the imported W&B from importing its launch agent, and pandas.

    A run asks the agent for inputs that were staged before it began: where nobody imported it,
    nobody staged any. pandas is imported to see whether a value is a data frame: where nobody
    imported it, none is. In a W&B that is built otherwise nothing changes: the imports are back.
    """
    util = sys.modules.get("wandb.util")
    if hasattr(util, IS_DATA_FRAME):
        setattr(util, IS_DATA_FRAME, is_data_frame)
    run_class = getattr(sys.modules.get("wandb.sdk.wandb_run"), "Run", None)
    apply_inputs = getattr(run_class, APPLY_INPUTS, None)
    if apply_inputs is None or apply_inputs.__module__ == __name__:
        return

    def apply_staged_inputs(run: Any) -> None:
        if "wandb.sdk.launch" in sys.modules:
            apply_inputs(run)

    setattr(run_class, APPLY_INPUTS, apply_staged_inputs)


def is_data_frame(value: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)
