"""How a run is stopped: interrupt the kernel, give it a moment, and more of one if it says that it is at it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.formats.events import EventReader, EventWriter
from lepton_jupyter.runner.kernel import RunKernel, why_ended

GRACE_S = 10
BUNDLING_S = 120
LOOK_S = 0.05


class StopControl:
    """The `Control` of a supervised run: SIGTERM raises a flag, the watcher beside each cell acts on it.

    The kernel answers with an event ``state: stopping`` when its training loop has seen the signal; it may then take
    `BUNDLING_S` to keep its best. A kernel that says nothing is killed after `GRACE_S`. A second SIGTERM kills at once.
    """

    def __init__(self, folder: RunFolder, events: EventWriter) -> None:
        self.folder = folder
        self.events = events
        self.kernel: RunKernel | None = None
        self.n_signals = 0
        self.is_acknowledged = False
        self.was_killed_by_us = False
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
        """Whether the run shall stop."""
        return self.n_signals > 0

    def must_end(self) -> bool:
        """Whether the next cell must not begin: a kernel that is at its bundle goes on to show what it has."""
        self._look_for_answer()
        return self.is_asked and not self.is_acknowledged

    async def watch(self) -> None:
        """Run beside a cell until it ends; see the class."""
        while not self.is_asked:
            await asyncio.sleep(LOOK_S)
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
        """Await something, but not once the run shall stop (or `is_over`); raises `asyncio.CancelledError` then."""
        task = asyncio.ensure_future(waiting)
        over = is_over or (lambda: self.is_asked)
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
        if self.was_killed_by_us:
            return "stopped", f"Stopped: the cell did not end within {GRACE_S} s and its kernel was killed."
        code = self.kernel.exit_code() if self.kernel is not None else None
        reason = why_ended(code)
        return "failed", reason[0].upper() + reason[1:] + "."

    def _is_over(self) -> bool:
        assert self._asked_at is not None
        limit_s = BUNDLING_S if self.is_acknowledged else GRACE_S
        return self.n_signals > 1 or monotonic() - self._asked_at > limit_s

    def _look_for_answer(self) -> None:
        if self._reader is None or self.is_acknowledged:
            return
        self.is_acknowledged = any(
            event.get("kind") == "state" and event.get("state") == "stopping" for _, event in self._reader.read()
        )
