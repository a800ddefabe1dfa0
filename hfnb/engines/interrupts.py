"""Hold back Ctrl-C while processes start or stop, so that it interrupts only where all of them are known."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def held() -> Iterator[Callable[[], None]]:
    """Hold back SIGINT in the block; it is delivered at the end or where the function yielded is called.

    Python raises KeyboardInterrupt between any two bytecodes, also between the start of a process and the
    assignment that remembers it. In the block a SIGINT is noted only. Delivering it calls the handler that
    was in place before, which raises KeyboardInterrupt by default. Only the main thread of Python receives
    signals: in another thread, and where SIGINT is ignored or handled outside Python, nothing is held.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (None, signal.SIG_IGN):
        yield lambda: None
        return
    noted: list[int] = []

    def deliver():
        if noted:
            noted.clear()
            signal.signal(signal.SIGINT, before)
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                signal.signal(signal.SIGINT, note)

    def note(number, frame):
        noted.append(number)

    signal.signal(signal.SIGINT, note)
    try:
        yield deliver
    finally:
        signal.signal(signal.SIGINT, before)
        if noted:
            signal.raise_signal(signal.SIGINT)
