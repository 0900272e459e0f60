"""Ctrl-C between two steps instead of within one, where it is Python's own that is replaced."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def after_the_step() -> Iterator[Callable[[], bool]]:
    """A function that says whether Ctrl-C was pressed; KeyboardInterrupt is raised where the block ends.

    The second Ctrl-C is raised where it arrives. Outside the main thread, and where somebody else handles the signal
    already, nothing is changed.

    Examples
    --------
    >>> import signal
    >>> try:
    ...     with after_the_step() as interrupted:
    ...         signal.raise_signal(signal.SIGINT)
    ...         print("the step ends:", interrupted())
    ... except KeyboardInterrupt:
    ...     print("and then")
    the step ends: True
    and then
    """
    pressed: list[int] = []

    def note(number: int, frame: Any) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt
