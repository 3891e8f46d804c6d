"""W&B without the work that a run does not need: a second of a process's time.

It happens in the mirror's thread, but Python runs one thread at a time, so training waits.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

APPLY_INPUTS = "_detect_and_apply_job_inputs"
IS_DATA_FRAME = "is_pandas_data_frame"
INSTALLED = "working_set"
TELEMETRY = "wandb.analytics.opentelemetry.opentelemetry_proxy"


def leave_unused_out() -> None:
    """Keep the imported W&B from importing its launch agent and pandas, and from other work.

    A run asks the agent for inputs that were staged before it began: where nobody imported it,
    nobody staged any. pandas is imported to see whether a value is a data frame: where nobody
    imported it, none is. What is installed is told by the names of folders, where W&B reads and
    parses a text of each package. What W&B reports of itself to its makers is left out.
    In a W&B that is built otherwise nothing changes: the work is back.
    """
    util = sys.modules.get("wandb.util")
    if hasattr(util, IS_DATA_FRAME):
        setattr(util, IS_DATA_FRAME, is_data_frame)
    if hasattr(util, INSTALLED):
        setattr(util, INSTALLED, installed_packages)
    disable_telemetry = getattr(sys.modules.get(TELEMETRY), "disable", None)
    if disable_telemetry is not None:
        disable_telemetry()
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


def installed_packages() -> Iterator[SimpleNamespace]:
    """Name (``key``) and ``version`` of every package that Python would find, once each."""
    seen = set()
    for place in sys.path:
        for folder in sorted(Path(place or ".").glob("*.dist-info")):
            name, _, version = folder.stem.partition("-")
            if name not in seen:
                seen.add(name)
                yield SimpleNamespace(key=name, version=version)
