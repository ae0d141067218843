"""The board: every view of the home, told live to whoever looks. While nobody does it costs nothing.

Views are compared as bytes: a change is a change of what a client would see. A listener that is slow gets the newest
view of each thing, never a queue of old ones.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from lepton_jupyter.core.states import ENDED
from lepton_jupyter.formats.views import RunView

log = logging.getLogger("lepton.backend")

LOOK_S = 0.25  # how often the runs in memory are looked at while there is a listener
RUN_S = 0.5  # a run that moves is told twice a second, a change of its state at once
STORE_S = 1.0  # everything else is looked at once a second, and read only where something changed
FRESH_S = 30.0  # and read once in a while in any case: a notebook that changed on disk is in no database

KINDS = {"run": "runs", "model": "models", "endpoint": "endpoints", "schedule": "schedules", "alert": "alerts"}
IDS = {"run": "run_id", "model": "run_id", "endpoint": "name", "schedule": "name", "alert": "id"}
_WHOLE = ("board", "")

Key = tuple[str, str]  # kind, id

_encode = msgspec.json.Encoder().encode


def message(event: str, content: Any) -> bytes:
    """Return a server-sent event."""
    return b"event: %s\ndata: %s\n\n" % (event.encode(), _encode(content))


class Listener:
    """One stream: what it has not been told yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.is_over = False
        self._loop = loop
        self._lock = threading.Lock()
        self._pending: dict[Key, bytes] = {}
        self._woken = asyncio.Event()

    def tell(self, news: dict[Key, bytes]) -> None:
        """Give it messages, each in the place of an older one about the same thing; from any thread."""
        with self._lock:
            for key, text in news.items():
                self._pending.pop(key, None)
                self._pending[key] = text
        self._wake()

    def end(self) -> None:
        """Let its stream come to an end; from any thread."""
        self.is_over = True
        self._wake()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._woken.set)

    async def next(self, timeout_s: float) -> bytes:
        """Wait for messages; empty where none came within the time."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), timeout_s)
        self._woken.clear()
        with self._lock:
            pending, self._pending = self._pending, {}
        return b"".join(pending.values())


class Board:
    """Every view of the home, and those who listen. Its methods may be called from any thread.

    Parameters
    ----------
    database : Path
        ``state.db``: whether it changed is asked of SQLite without reading a table.
    read : callable
        Returns the views of every kind in `KINDS`, newest first, from the database and the processes.
    moving : callable
        Given the ids of runs that were not at their end when they were last seen: returns those runs, and every
        other that has not ended, as they stand in memory.
    signature : callable
        Something cheap that differs where a view differs without a change of the database.
    """

    def __init__(
        self,
        database: Path,
        *,
        read: Callable[[], dict[str, Iterable[Struct]]],
        moving: Callable[[Iterable[str]], Iterable[RunView]],
        signature: Callable[[], object],
    ) -> None:
        self._database = database
        self._read = read
        self._moving = moving
        self._signature = signature
        self._lock = threading.RLock()
        self._listeners: set[Listener] = set()
        self._shown: dict[Key, bytes] = {}
        self._runs: dict[str, tuple[RunView, float]] = {}  # as they were last told, and when
        self._over = threading.Event()

    # -- in and out

    def listen(self, listener: Listener) -> None:
        """Take a listener: it is told the whole board now, then what changes."""
        with self._lock:
            self._tell(self._refreshed())
            listener.tell({_WHOLE: message("board", self._whole())})
            self._listeners.add(listener)
            if len(self._listeners) == 1:
                self._over = threading.Event()
                threading.Thread(target=self._work, args=(self._over,), name="board", daemon=True).start()

    def leave(self, listener: Listener) -> None:
        """Let a listener go; with the last one the looking ends."""
        with self._lock:
            self._listeners.discard(listener)
            if not self._listeners:
                self._over.set()

    def close(self) -> None:
        """End every stream."""
        with self._lock:
            for listener in self._listeners:
                listener.end()

    def _whole(self) -> dict[str, list[msgspec.Raw]]:
        found: dict[str, list[msgspec.Raw]] = {plural: [] for plural in KINDS.values()}
        for (kind, _), encoded in self._shown.items():
            found[KINDS[kind]].append(msgspec.Raw(encoded))
        return found

    def _tell(self, news: dict[Key, bytes]) -> None:
        if news:
            for listener in self._listeners:
                listener.tell(news)

    # -- the looking

    def _work(self, over: threading.Event) -> None:
        connection = sqlite3.connect(self._database)
        seen: object = None
        looked_at = read_at = 0.0
        try:
            while not over.wait(LOOK_S):
                now = time.monotonic()
                try:
                    with self._lock:
                        self._tell(self._moved(now))
                        if now - looked_at < STORE_S:
                            continue
                        looked_at = now
                        found = (_version(connection), self._signature())
                        if found != seen or now - read_at > FRESH_S:
                            seen, read_at = found, now
                            self._tell(self._refreshed())
                except Exception:
                    log.exception("the board stumbled")
                    over.wait(STORE_S)
        finally:
            connection.close()

    def _moved(self, now: float) -> dict[Key, bytes]:
        """Return what to say about runs that moved, from memory alone."""
        news: dict[Key, bytes] = {}
        unfinished = [run_id for run_id, (view, _) in self._runs.items() if view.state not in ENDED]
        for view in self._moving(unfinished):
            last, told_at = self._runs.get(view.run_id, (None, 0.0))
            if view is last or (last is not None and view.state == last.state and now - told_at < RUN_S):
                continue
            self._runs[view.run_id] = (view, now)
            key, encoded = ("run", view.run_id), _encode(view)
            if self._shown.get(key) != encoded:
                news[key] = b"event: run\ndata: %s\n\n" % encoded
                self._shown = {**self._shown, key: encoded} if key in self._shown else {key: encoded, **self._shown}
        return news

    def _refreshed(self) -> dict[Key, bytes]:
        """Read everything; return what to say about what is different."""
        views = {(kind, str(getattr(view, IDS[kind]))): view for kind, found in self._read().items() for view in found}
        shown = {key: _encode(view) for key, view in views.items()}
        news = {
            key: b"event: %s\ndata: %s\n\n" % (key[0].encode(), encoded)
            for key, encoded in shown.items()
            if self._shown.get(key) != encoded
        }
        for kind, name in self._shown.keys() - shown.keys():
            news[kind, name] = message("gone", {"kind": kind, "id": name})
        self._shown = shown
        now = time.monotonic()
        self._runs = {view.run_id: (view, now) for view in views.values() if isinstance(view, RunView)}
        return news


def _version(connection: sqlite3.Connection) -> int:
    """Return a number that differs when another connection has changed the database."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])
