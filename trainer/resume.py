"""Continue an interrupted run, or start a new one from another's checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainer import checkpoint
from trainer.distributed import was_restarted
from trainer.state import restore

if TYPE_CHECKING:
    from trainer.trainer import Trainer


def resume(trainer: Trainer, source: str | None) -> None:
    """Load the state that ``source`` names: null, ``auto``, a run directory or a checkpoint.

    ``auto`` continues in this run directory if it has a checkpoint and starts afresh otherwise; so
    do processes that torchrun's engine has restarted.
    """
    own = trainer.records.run_dir / "checkpoints" / "last.pt"
    if was_restarted() and own.exists():
        source = "auto"
    if source is None:
        return
    if source == "auto":
        if not own.exists():
            return
        path = own
    else:
        path = Path(source)
        if path.is_dir():
            path = path / "checkpoints" / "last.pt"
    restore(trainer, checkpoint.load(path))
