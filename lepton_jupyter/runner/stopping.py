"""How a run is stopped: interrupt the kernel, give it a moment, and more of one if it says that it is at it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.formats.events import EventReader, EventWriter
from lepton_jupyter.runner.kernel import RunKernel
from lepton_jupyter.runner.outputs import trim_log

GRACE_S = 10  # for a kernel that was interrupted
BUNDLING_S = 120
LOOK_S = 0.05
WATCH_S = 0.25  # between two looks while nobody has asked: each takes its time from a training


class StopControl:
    """The `Control` of a supervised run: SIGTERM raises a flag, the watcher beside each cell acts on it.

    The kernel answers with an event ``state: stopping`` when its training loop has seen the signal; it may then take
    `BUNDLING_S` to keep its best. A kernel that says nothing is killed after `GRACE_S`. A second SIGTERM kills at once.

    A run that takes longer than `timeout_s` is ended in the same way, and has failed.
    """

    def __init__(self, folder: RunFolder, events: EventWriter, timeout_s: float | None = None) -> None:
        self.folder = folder
        self.events = events
        self.timeout_s = timeout_s
        self.is_late = False
        self.kernel: RunKernel | None = None
        self.n_signals = 0
        self.is_acknowledged = False
        self.was_killed_by_us = False
        self._began_at = monotonic()
        self._asked_at: float | None = None
        self._is_interrupted = False
        self._reader: EventReader | None = None

    def install(self, early: Sequence[int] = ()) -> None:
        """Take SIGTERM, and those that came `early`; SIGINT and SIGHUP are not for us: they are a terminal's."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if early:
            self._on_signal()

    def _on_signal(self, *_: Any) -> None:
        self.n_signals += 1
        if self._asked_at is None:
            self._asked_at = monotonic()

    @property
    def is_asked(self) -> bool:
        """Whether somebody asked the run to stop, before its time was over."""
        return self.n_signals > 0 and not self.is_late

    @property
    def is_ending(self) -> bool:
        """Whether the run shall end: it was asked to, or its time is over."""
        if self._asked_at is None and self.timeout_s is not None and monotonic() - self._began_at > self.timeout_s:
            self.is_late = True
            self._asked_at = monotonic()
        return self._asked_at is not None

    def must_end(self) -> bool:
        """Whether the next cell must not begin: a kernel that is at its bundle goes on to show what it has."""
        self._look_for_answer()
        return self.is_ending and (self.is_late or not self.is_acknowledged)

    async def watch(self) -> None:
        """Run beside a cell until it ends; see the class."""
        while not self.is_ending:
            await asyncio.sleep(WATCH_S)
            trim_log(self.folder.log)
        if not self._is_interrupted and self.kernel is not None:
            self._is_interrupted = True
            self._reader = EventReader(self.folder.kernel_events)
            self.kernel.interrupt()
        while not self._is_over():
            await asyncio.sleep(LOOK_S)
            self._look_for_answer()
        if self.kernel is not None and self.kernel.exit_code() is None:
            self.was_killed_by_us = True
            self.kernel.kill()

    async def guard(self, waiting: Any, *, is_over: Callable[[], bool] | None = None) -> Any:
        """Await something, but not once the run shall end (or `is_over`); raises `asyncio.CancelledError` then."""
        task = asyncio.ensure_future(waiting)
        over = is_over or (lambda: self.is_ending)
        while not task.done():
            await asyncio.wait({task}, timeout=LOOK_S)
            if over() and not task.done():
                task.cancel()
        return await task

    def cell(self, index: int, n_cells: int, status: str) -> None:
        """Tell of a cell."""
        self.events.write("cell", index=index, n=n_cells, status=status)

    def why_dead(self) -> tuple[str, str]:
        """Return state and message for a kernel that is gone."""
        if self.is_late:
            how = " Its cell did not answer the interrupt, and its kernel was killed." if self.was_killed_by_us else ""
            return "failed", self.why_late() + how
        if self.was_killed_by_us:
            return "stopped", f"Stopped: the cell did not end within {GRACE_S} s and its kernel was killed."
        reason = self.kernel.why_ended() if self.kernel is not None else "the kernel is gone"
        if self.is_asked:
            return "stopped", f"Stopped: while it was stopping, {reason}."
        return "failed", reason[0].upper() + reason[1:] + "."

    def why_late(self) -> str:
        """Return the sentence of a run whose time is over."""
        return f"It ran past its time-out of {_span(self.timeout_s or 0)}."

    def _is_over(self) -> bool:
        assert self._asked_at is not None
        limit_s = BUNDLING_S if self.is_acknowledged else GRACE_S
        return self.n_signals > (0 if self.is_late else 1) or monotonic() - self._asked_at > limit_s

    def _look_for_answer(self) -> None:
        if self._reader is None or self.is_acknowledged:
            return
        self.is_acknowledged = any(
            event.get("kind") == "state" and event.get("state") == "stopping" for _, event in self._reader.read()
        )


def _span(seconds: float) -> str:
    """Return a length of time as it is typed: ``10m``, ``90s``."""
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"
