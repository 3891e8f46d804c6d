"""Interface of the writers to which a run log passes everything it logs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import ConfigError, reason


class Writer:
    """Base class of log destinations. Every method is a no-op unless overridden."""

    def write_header(self, spec: Any, facts: dict[str, Any]) -> None:
        """Called when everything is built, before training.

        Args:
            spec: the data's specification.
            facts: entries of ``summary.json`` on the model, the data and the machine.
        """

    def print(self, text: str) -> None:
        """Print a line for the user, with rich markup."""

    def start_progress(self, total_steps: int, step: int) -> None:
        """Called when training starts, at update ``step``."""

    def update_progress(self, step: int) -> None:
        """Called after every update."""

    def log_event(self, number: int, event: dict[str, Any]) -> None:
        """Log line ``number`` (from 0) of ``metrics.jsonl``: metrics, or an entry of ``media``."""

    def log_evaluation(
        self, step: int, seconds: float, metrics: dict[str, float], is_best: bool
    ) -> None:
        """Log the metrics of an evaluation, after ``seconds`` of training."""

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write the current summary."""

    def finalize(self, summary: dict[str, Any]) -> None:
        """Called once at the end of the run, also after an error."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise ConfigError if ``path`` cannot be written, such as on a full disk."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {reason(error)}") from error
