"""What a run log hands to each place it is written to."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import ConfigError, reason


class Writer:
    """One place a run is logged to. Every method does nothing unless it is overridden."""

    def write_header(self, spec: Any, facts: dict[str, Any]) -> None:
        """All is built.

        Args:
            spec: of the data.
            facts: of the model, the data and the machine, as in ``summary.json``.
        """

    def print(self, text: str) -> None:
        """A line for people, with rich's markup."""

    def start_progress(self, total_steps: int, step: int) -> None:
        """Training begins at update ``step``."""

    def update_progress(self, step: int) -> None:
        """An update was made."""

    def log_event(self, number: int, event: dict[str, Any]) -> None:
        """Line ``number`` (from 0) of ``metrics.jsonl``: metrics, or an entry of ``media``."""

    def log_evaluation(
        self, step: int, seconds: float, metrics: dict[str, float], is_best: bool
    ) -> None:
        """The metrics of an evaluation, after ``seconds`` of training."""

    def write_summary(self, summary: dict[str, Any]) -> None:
        """What is known of the run by now."""

    def finalize(self, summary: dict[str, Any]) -> None:
        """The run is over; called once, whatever has happened."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises: ConfigError: ``path`` cannot be written, such as on a full disk."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {reason(error)}") from error
