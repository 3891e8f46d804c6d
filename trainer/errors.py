"""Errors that end a run with one line rather than a traceback."""


class ConfigError(Exception):
    """A setting or an input file is wrong. The message names it and says what to do."""


class Diverged(Exception):
    """The loss or the gradients are no longer finite."""
