"""Ctrl-C while there is nothing to save: one line and code 130 in place of a traceback.

The scripts import it before everything else, which takes seconds; ``train.py`` takes over from it
when all is imported.
"""

import os
import signal
from types import FrameType

program = os.getpid()  # its children inherit the handler, and tell nobody


def end(number: int, frame: FrameType | None) -> None:
    if os.getpid() == program:
        os.write(2, b"error: interrupted by SIGINT\n")
    os._exit(128 + number)


if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in the background of a script
    signal.signal(signal.SIGINT, end)
