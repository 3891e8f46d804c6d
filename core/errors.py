"""Errors that end a run with one line rather than a traceback."""

import signal
import traceback


class ConfigError(Exception):
    """A setting or an input file is wrong. The message names it and says what to do."""


class RunInUse(ConfigError):
    """Another process is writing to the run directory, so this one must not."""


class OutOfMemory(ConfigError):
    """The settings ask for more memory than the device has."""


class Diverged(Exception):
    """The loss or the gradients are no longer finite."""


class RankFailed(Exception):
    """A process of the job raised or was killed.

    Attributes:
        traceback: formatted by the failed process; empty if it was killed.
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class Interrupted(BaseException):
    """A signal ended the run. Not an ``Exception``, so that it ends a whole sweep, as Ctrl-C does.

    Attributes:
        is_agreed: whether all processes of the run are ending because of it.
    """

    def __init__(self, number: int, is_agreed: bool = False) -> None:
        super().__init__(number)
        self.signal = number
        self.is_agreed = is_agreed

    def __str__(self) -> str:
        return f"interrupted by {signal.Signals(self.signal).name}"

    @property
    def exit_code(self) -> int:
        return 128 + self.signal


def reason(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    if lines:
        return lines[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at `{frames[-1].line}`, {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + where  # a bare assertion has no message
