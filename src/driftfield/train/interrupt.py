"""Ctrl-C and SIGTERM that wait for the step in progress."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """Training was stopped by the user; its state is saved."""


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, or the SIGTERM of a launcher or a batch system; a second one acts at once.

    It is never set outside the main thread, nor by a signal that the program was started to ignore (Ctrl-C in a
    background job).
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heeded = {number: old for number, old in before.items() if old is not signal.SIG_IGN}

    def note(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in heeded:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, old in heeded.items():
            signal.signal(number, old)
