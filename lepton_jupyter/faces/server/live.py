"""The one stream from the backend that every browser stream of this Jupyter server shares."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from lepton_jupyter.backend.board import IDS, KINDS, Key, Listener, message
from lepton_jupyter.faces.server.wire import Wire

log = logging.getLogger("lepton.server")

SILENCE_S = 40.0  # the backend pings every 15 s
FIRST_PAUSE_S = 0.25
LAST_PAUSE_S = 2.0

View = dict[str, Any]
OnChange = Callable[[str, View | None, View], None]  # kind, before, after


class Live:
    """What the backend's board shows, kept here; a backend that is away is waited for, and never started.

    What a browser is told: first ``board`` with every view and ``is_up``; then ``run``, ``model``, ``endpoint``,
    ``schedule``, ``alert`` with one view each, ``gone`` with ``kind`` and ``id``; ``away`` when the backend goes; and
    ``board`` again when it is back.

    Parameters
    ----------
    wire : Wire
        The line to the backend.
    on_change : callable
        Called with a kind, the view before (None where it is new) and the view after.
    """

    def __init__(self, wire: Wire, on_change: OnChange) -> None:
        self.is_up = False
        self._wire = wire
        self._on_change = on_change
        self._views: dict[Key, View] = {}
        self._has_seen_board = False
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow the backend; once more is no harm. Called on the server's loop."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._follow())

    def stop(self) -> None:
        """Let go of the backend, and end every stream."""
        if self._task is not None:
            self._task.cancel()
        for listener in self._listeners:
            listener.end()

    def join(self, listener: Listener) -> None:
        """Take a browser's stream."""
        self.start()
        listener.tell({("board", ""): self._whole()})
        self._listeners.add(listener)

    def leave(self, listener: Listener) -> None:
        """Let a browser's stream go."""
        self._listeners.discard(listener)

    def _whole(self) -> bytes:
        found: dict[str, Any] = {plural: [] for plural in KINDS.values()}
        for (kind, _), view in self._views.items():
            found[KINDS[kind]].append(view)
        return message("board", {**found, "is_up": self.is_up})

    def _tell(self, key: Key, text: bytes) -> None:
        for listener in self._listeners:
            listener.tell({key: text})

    # -- the backend

    async def _follow(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            if self._wire.socket.exists():
                async for event, data in self._events():
                    pause_s = FIRST_PAUSE_S
                    self._take(event, data)
            if self.is_up:
                self.is_up = False
                self._tell(("board", ""), message("away", {}))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_PAUSE_S)

    async def _events(self) -> AsyncIterator[tuple[str, str]]:
        """Yield name and data of every event of the backend's stream, until it ends or is silent for too long."""
        client = await self._wire.backend()
        import httpx  # lazy: by now it is loaded

        try:
            timeout = httpx.Timeout(SILENCE_S)
            async with client.stream("GET", "/v1/events", timeout=timeout) as answer:
                if answer.status_code != 200:
                    log.debug("the backend has no stream: %s", answer.status_code)
                    return
                name = ""
                async for line in answer.aiter_lines():
                    key, _, value = line.partition(": ")
                    if key == "event":
                        name = value
                    elif key == "data":
                        yield name, value
        except httpx.TransportError as error:
            log.debug("the stream of the backend broke off: %r", error)

    def _take(self, event: str, data: str) -> None:
        told: dict[str, Any] = msgspec.json.decode(data)
        if event == "board":
            self._replace(told)
        elif event == "gone":
            key = (str(told["kind"]), str(told["id"]))
            self._views.pop(key, None)
            self._tell(key, f"event: gone\ndata: {data}\n\n".encode())
        elif event in IDS:
            key = (event, str(told[IDS[event]]))
            before = self._views.get(key)
            self._views = {**self._views, key: told} if before is not None else {key: told, **self._views}
            self._tell(key, f"event: {event}\ndata: {data}\n\n".encode())
            self._on_change(event, before, told)

    def _replace(self, board: dict[str, Any]) -> None:
        before, self._views = self._views, {}
        for kind, plural in KINDS.items():
            for view in board.get(plural, []):
                self._views[kind, str(view[IDS[kind]])] = view
        self.is_up = True
        self._tell(("board", ""), self._whole())
        if self._has_seen_board:  # what happened while it was away; the first time everything is as it was
            for key, view in self._views.items():
                if view != before.get(key):
                    self._on_change(key[0], before.get(key), view)
        self._has_seen_board = True
