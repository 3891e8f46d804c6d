"""W&B without the work that a run does not need: a second of the time of one processor.

It happens beside the training, which on a small machine needs all of them.
"""

import importlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

APPLY_INPUTS = "_detect_and_apply_job_inputs"
IS_DATA_FRAME = "is_pandas_data_frame"
INSTALLED = "working_set"
DOCSTRINGS = "extract_docstrings_from_cls"
TELEMETRY = "wandb.analytics.opentelemetry.opentelemetry_proxy"


def import_wandb() -> Any:
    """The module, silent and lean."""
    os.environ.setdefault("WANDB_SILENT", "true")  # the settings of a run come too late for some
    logging.raiseExceptions = False  # wandb's own log may be on a full disk
    with settings_undescribed():
        import wandb

    leave_unused_out()
    return wandb


@contextmanager
def settings_undescribed() -> Iterator[None]:
    """Keep pydantic from parsing W&B's source for what is written below each setting."""
    fields, extract = None, None
    with suppress(ImportError):
        fields = importlib.import_module("pydantic._internal._fields")
        extract = getattr(fields, DOCSTRINGS, None)
    if extract is None:
        yield
        return
    setattr(fields, DOCSTRINGS, lambda *_, **__: {})
    try:
        yield
    finally:
        setattr(fields, DOCSTRINGS, extract)


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
