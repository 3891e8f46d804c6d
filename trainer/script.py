"""How the scripts begin and end: before everything else is imported, and when all is done.

Imported first, which ``if __name__ == "__main__"`` keeps to scripts. Ctrl-C while there is nothing
to save is one line and code 130 in place of a traceback; ``train.py`` takes over from it when all
is imported.
"""

import atexit
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

program = os.getpid()  # its children inherit the handlers, and use neither
exit_code: int | None = None


def end(number: int, frame: FrameType | None) -> None:
    if os.getpid() == program:
        os.write(2, b"error: interrupted by SIGINT\n")
    os._exit(128 + number)


def leave(code: int) -> NoReturn:
    """End the script, but do not take apart what torch is made of: a seventh of a second and more.

    Everything that was registered to happen at exit happens.
    """
    global exit_code
    exit_code = code
    sys.exit(code)


def end_at_once() -> None:
    if exit_code is not None and os.getpid() == program:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # closed: nobody reads it any more
                stream.flush()
        os._exit(exit_code)


atexit.register(end_at_once)  # registered first, so it comes last
if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in the background of a script
    signal.signal(signal.SIGINT, end)
