"""SIGINT inside a run: a flag while a training loop looks at it, KeyboardInterrupt everywhere else.

A KeyboardInterrupt in the middle of a step would leave a loader that hangs when it is next asked; a loop that ends
at a step's end leaves everything whole.
"""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interrupts:
    """What the kernel was told by SIGINT.

    Attributes
    ----------
    is_asked : bool
        Whether a stop was asked for.
    is_polled : bool
        Whether a loop looks at `is_asked`: an interrupt then raises nothing.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self.is_polled = False
        self._before: Any = None

    def install(self, *_: Any) -> None:
        """Take the signal for the cell that begins now: ipykernel sets it anew for every cell."""
        if threading.current_thread() is not threading.main_thread():
            return
        found = signal.getsignal(signal.SIGINT)
        if found != self._on_signal:
            self._before = found
            signal.signal(signal.SIGINT, self._on_signal)
        self.is_polled = False

    def _on_signal(self, number: int, frame: Any) -> None:
        self.is_asked = True
        if self.is_polled:
            return
        # For a cell that awaits, ipykernel's own handler cancels it; raising would end the kernel's loop.
        if callable(self._before) and self._before is not signal.default_int_handler:
            self._before(number, frame)
            return
        raise KeyboardInterrupt
