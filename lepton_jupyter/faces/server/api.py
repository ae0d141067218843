"""``api/v1/…``: what the backend shows, to read; and its one stream, shared by every browser."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qsl, urlencode

import tornado.web
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado.iostream import StreamClosedError

from lepton_jupyter.backend.board import Listener
from lepton_jupyter.core.errors import LeptonError

PING_S = 15.0
STATUS = {"bad_input": 400, "not_found": 404, "unavailable": 503}  # else 409, as the backend answers
OURS_ALONE = ("token", "_xsrf")  # query arguments that are Jupyter's


class Handler(APIHandler):
    """What every route of ours has: the extension, and errors as they travel."""

    auth_resource = "lepton"

    @property
    def lepton(self) -> Any:
        """The `Extension` of this server."""
        return self.settings["lepton_jupyter"]

    def refuse(self, error: LeptonError, status: int | None = None) -> None:
        """Answer with an error of ours: message, hint, code."""
        self.set_status(status or STATUS.get(error.code, 409))
        self.finish(json.dumps({"error": error.to_dict()}))

    @property
    def query(self) -> str:
        """The query without what is Jupyter's own: no token leaves this server."""
        pairs = parse_qsl(self.request.query, keep_blank_values=True)
        return urlencode([(key, value) for key, value in pairs if key not in OURS_ALONE])


class EventStream(Handler):
    """A handler whose answer has no end."""

    _track_activity = False  # looking is no activity: a server that is only looked at may be culled

    def finish(self, *args: Any, **keywords: Any) -> Any:
        """End the answer; its type stays what it is."""
        return super(APIHandler, self).finish(*args, **keywords)

    def begin(self) -> None:
        """Set what keeps proxies from holding events back."""
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Accel-Buffering", "no")


class LiveHandler(EventStream):
    """``GET api/v1/events``."""

    _listener: Listener | None = None

    @tornado.web.authenticated
    @authorized
    async def get(self) -> None:
        """Tell the board, then every change, until the browser goes."""
        self.begin()
        listener = self._listener = Listener(asyncio.get_running_loop())
        self.lepton.live.join(listener)
        try:
            while not listener.is_over:
                self.write(await listener.next(PING_S) or b": ping\n\n")
                await self.flush()
        except StreamClosedError:
            pass
        finally:
            self.lepton.live.leave(listener)

    def on_connection_close(self) -> None:
        """The browser has gone."""
        if self._listener is not None:
            self._listener.end()


class ApiHandler(EventStream):
    """``GET api/v1/…``: what the backend answers, as it comes."""

    _task: asyncio.Task[None] | None = None

    @tornado.web.authenticated
    @authorized
    async def get(self, path: str) -> None:
        """Ask the backend; one that is not there is not started by looking."""
        raw = self.request.path.partition("/lepton-jupyter/api")[2]
        self._task = asyncio.ensure_future(self._copy(f"{raw}?{self.query}"))
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()

    async def _copy(self, target: str) -> None:
        client = await self.lepton.wire.backend()
        import httpx  # lazy: by now it is loaded

        try:
            async with client.stream("GET", target) as answer:
                self.set_status(answer.status_code)
                self.begin()
                self.set_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
                async for part in answer.aiter_bytes():
                    self.write(part)
                    await self.flush()
        except httpx.TransportError as error:
            if not self._headers_written:
                self.set_header("Content-Type", "application/json")
                self.refuse(away(self.lepton.home.root, error))
        except StreamClosedError:
            pass

    def on_connection_close(self) -> None:
        """The browser has gone: nothing more is asked for it."""
        if self._task is not None:
            self._task.cancel()


def away(home: object, error: Exception) -> LeptonError:
    """Return what is said where no backend answers."""
    return LeptonError(
        f"No backend answers for '{home}'.", "Any verb starts it: %lepton runs", code="unavailable", detail=repr(error)
    )
