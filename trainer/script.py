"""How the scripts begin, before everything else is imported, and end, when all is done."""

import atexit
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

imports_are_done = False
background: list[threading.Thread] = []
program: int | None = None  # its children inherit the handlers, and use neither
exit_code: int | None = None


def begin() -> None:
    """Ctrl-C while there is nothing to save: one line and code 130 in place of a traceback.

    ``train.py`` takes over when it can compose. Until :func:`run`, Python does not look for
    garbage, which makes the imports a sixth shorter.
    """
    global program
    program = os.getpid()
    open_standard_streams()
    gc.disable()
    atexit.register(join_background)  # what is registered first comes last
    atexit.register(end_at_once)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in the background of a script
        signal.signal(signal.SIGINT, interrupt)


def open_standard_streams() -> None:
    """Where the shell has closed one, what is opened next would take its place, here or later."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
            os.set_inheritable(opened, True)


def in_background(work: Callable[[], None]) -> None:
    """Begin a piece of work that the end of the script need not wait for, unless Python ends it.

    Python would take apart what the work is using.
    """
    background.append(threading.Thread(target=work, daemon=True))
    background[-1].start()


def join_background() -> None:
    for thread in background:
        thread.join()


@contextmanager
def importing() -> Iterator[None]:
    """The same for imports that come later; does something the first time in a process."""
    global imports_are_done
    if imports_are_done:
        yield
        return
    before = None
    if os.getpid() == program and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        before = signal.signal(signal.SIGINT, interrupt)
    gc.disable()
    try:
        yield
        imports_are_done = True
    finally:
        gc.freeze()
        gc.enable()
        if before is not None:
            signal.signal(signal.SIGINT, before)


def interrupt(number: int, frame: FrameType | None) -> None:
    if os.getpid() == program:
        os.write(2, b"error: interrupted by SIGINT\n")
    os._exit(128 + number)


def run(main: Callable[[], int]) -> NoReturn:
    """All is imported, and stays: garbage is looked for among what comes from now on.

    At the end of the script what torch is made of is not taken apart, which takes a seventh of a
    second and more. Whatever was registered since :func:`begin` to happen at exit happens.

    Args:
        main: gives the exit code.
    """
    global exit_code
    gc.freeze()
    gc.enable()
    try:
        exit_code = main()
    except BrokenPipeError:  # nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        exit_code = 128 + signal.SIGPIPE
    sys.exit(exit_code)


def end_at_once() -> None:
    if exit_code is not None and os.getpid() == program and is_flushed():
        os._exit(exit_code)


def is_flushed() -> bool:
    """Whether all that was printed has arrived; else Python, at exit, says that it did not."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # it is None where it was closed from the start
                stream.flush()
    except (OSError, ValueError):
        return False
    return True
