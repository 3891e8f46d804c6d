"""The signals that ask a run to end."""

import signal

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


def heeded() -> list[signal.Signals]:
    """The signals that this process handles: nohup protects it from SIGHUP."""
    is_protected = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in SIGNALS if not (is_protected and number == signal.SIGHUP)]
