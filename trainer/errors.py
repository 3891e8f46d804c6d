"""Errors that end a run with one line rather than a traceback."""


class ConfigError(Exception):
    """A setting or an input file is wrong. The message names it and says what to do."""


class Diverged(Exception):
    """The loss or the gradients are no longer finite."""


class RankFailed(Exception):
    """A process of the job raised or was killed.

    Attributes:
        traceback: where it raised, in its own words; empty if it was killed.
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback
