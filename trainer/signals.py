"""Stop signals: SIGTERM and SIGUSR1 from a cluster, SIGINT from Ctrl-C, SIGHUP.

During training a handler only records the signal. The loop checks for it between updates, all
processes agree to stop, the state is saved, and :class:`Interrupted` ends the run. Outside the loop
there is nothing to save, and the handler raises at once.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from core.collectives import agree, broadcast, gather
from core.errors import Interrupted
from core.ranks import Ranks

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
SYNC_SECONDS = 1.0
SAME_KEYSTROKE_SECONDS = 1.0  # Ctrl-C reaches a worker from the terminal and from its launcher


@contextmanager
def stop_signals_call(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Handle the stop signals during the block; does nothing outside the main thread.

    SIGHUP stays ignored in a process started with ``nohup``.
    """
    is_main_thread = threading.current_thread() is threading.main_thread()
    is_protected = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    before = {
        number: signal.signal(number, handler)
        for number in STOP_SIGNALS
        if is_main_thread and not (is_protected and number == signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


class Interruption:
    """The stop signal that this process received, if any. One instance per run."""

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
        """Check for signals; every process must call it at the same points of the run.

        Raises:
            Interrupted: on all processes, if any of them received a signal.
        """
        if agree(self.signal != 0):
            self.signal, self.noted_at = max(gather(self.signal)), time.monotonic()
            raise Interrupted(self.signal, is_agreed=True)

    @contextmanager
    def defer(self) -> Iterator[None]:
        """Record signals instead of raising, so that the block can save its state first."""
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False


class SyncSchedule:
    """Schedules the all-reduce by which processes agree to continue, about once a second.

    Doing so every update would make them wait for each other. A single process needs no exchange.
    """

    def __init__(self, ranks: Ranks, batches: int) -> None:
        self.ranks = ranks
        self.synced_at, self.synced_batches, self.due = time.monotonic(), batches, batches

    def is_due(self, batches: int) -> bool:
        return self.ranks.world_size == 1 or batches >= self.due

    def plan(self, batches: int) -> None:
        """Schedule the next exchange after as many updates as rank 0 makes in a second."""
        if self.ranks.world_size > 1:
            now = time.monotonic()
            rate = (batches - self.synced_batches) / max(now - self.synced_at, 1e-6)
            self.synced_at, self.synced_batches = now, batches
            self.due = batches + broadcast(max(1, int(rate * SYNC_SECONDS)))


@contextmanager
def listening() -> Iterator[Interruption]:
    """Handle the stop signals for the duration of one run.

    Raises:
        Interrupted: also in place of the communication error when a peer has exited first.
    """
    interruption = Interruption()
    with stop_signals_call(interruption.note):
        try:
            yield interruption
        except RuntimeError as error:
            if interruption.signal:
                raise Interrupted(interruption.signal) from error
            raise
