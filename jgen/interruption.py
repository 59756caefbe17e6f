"""Stopping a run from outside: the first signal asks it to end cleanly, the second ends the process at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether SIGINT or SIGTERM came; a second one exits with 128 + its number.

    Outside the main thread, which alone may handle signals, the function always says no.
    """
    came: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if came:
            os._exit(128 + number)
        came.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
