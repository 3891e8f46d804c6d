"""Signals that ask a run to end: SIGTERM and SIGUSR1 from a cluster, SIGINT from Ctrl-C, SIGHUP.

While the run trains they are only noted; the loop asks between two updates, all processes agree,
the state is saved, and :class:`Interrupted` ends the run. Outside of the loop there is nothing to
save, and it is raised at once.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from core.errors import Interrupted, PeerLost
from trainer.distributed.process_group import agree, gather, lost_a_peer
from trainer.signals import heeded

SAME_KEYSTROKE_SECONDS = 1.0  # Ctrl-C reaches a worker from the terminal and from its launcher


class Interruption:
    """What this process was told. One per run."""

    def __init__(self) -> None:
        self.signal = 0
        self.noted_at = 0.0
        self.deferred = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        repeated = self.signal and time.monotonic() - self.noted_at > SAME_KEYSTROKE_SECONDS
        if repeated and number == signal.SIGINT:  # a second Ctrl-C ends at once
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if not self.signal:
            self.signal, self.noted_at = number, time.monotonic()
            if not self.deferred:
                raise Interrupted(number)

    def check(self) -> None:
        """Called by every process at the same points of the run.

        Raises:
            Interrupted: on all of them, if any was told to end.
        """
        if agree(self.signal != 0):
            self.signal, self.noted_at = max(gather(self.signal)), time.monotonic()
            raise Interrupted(self.signal, is_agreed=True)

    @contextmanager
    def defer(self) -> Iterator[None]:
        """Note signals instead of raising: the block has something to save."""
        self.deferred, peer_is_lost = True, False
        try:
            yield
        except RuntimeError as error:
            peer_is_lost = lost_a_peer(error)
            raise
        finally:
            self.deferred = peer_is_lost  # then being told to end is no interruption


@contextmanager
def listening() -> Iterator[Interruption]:
    """Handle the signals for the time of one run; elsewhere than in the main thread, do not.

    Raises:
        PeerLost: another process was lost after this one had been told to end.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, interruption.note) for number in heeded()}
    try:
        yield interruption
    except RuntimeError as error:
        if interruption.signal and lost_a_peer(error):  # the signal will not come again
            raise PeerLost(str(error), is_told=True) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
