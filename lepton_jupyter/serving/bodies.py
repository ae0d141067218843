"""Bodies that are read as they arrive: bounded in size, in time, and all of them together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from time import perf_counter
from typing import Any

from lepton_jupyter.serving.answers import refused, too_large

MAX_BYTES_IN_FLIGHT = 256 * 2**20  # bodies of all requests together
BODY_TIMEOUT_S = 120
LOOK_S = 1.0

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class GoneError(Exception):
    """The client went away before its request was whole."""


class Bodies:
    """What has arrived of all bodies, and what is still to come. For the event loop's thread.

    Attributes
    ----------
    n_bytes : int
        Of those that were read and not given back by `release`.
    """

    def __init__(self) -> None:
        self.n_bytes = 0
        self._arriving: dict[asyncio.Task[Any], float] = {}  # since when each waits for its body
        self._late: set[asyncio.Task[Any]] = set()
        self._looking: asyncio.TimerHandle | None = None

    def release(self, body: bytes) -> None:
        """Forget a body that was read."""
        self.n_bytes -= len(body)

    async def read(self, receive: Receive, headers: Mapping[bytes, bytes], limit: int) -> bytes:
        """Return a body; it counts until `release`.

        Raises
        ------
        HttpError
            413 for more than `limit` bytes, 408 after two minutes, 503 where all together are too much.
        GoneError
        """
        declared = headers.get(b"content-length")
        if declared is not None and int(declared) > limit:  # the server has let digits through only
            raise too_large(limit)
        task = asyncio.current_task()
        assert task is not None
        parts: list[bytes] = []
        size = 0
        self._arriving[task] = perf_counter()
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look)
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise GoneError
                part = message.get("body", b"")
                parts.append(part)
                size += len(part)
                self.n_bytes += len(part)
                if size > limit:
                    raise too_large(limit)
                if self.n_bytes > MAX_BYTES_IN_FLIGHT:
                    raise refused(503, "Too much is under way.", "Ask again.", headers=[(b"retry-after", b"1")])
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
        except BaseException as error:
            self.n_bytes -= size
            if isinstance(error, asyncio.CancelledError) and task in self._late:
                task.uncancel()
                raise refused(408, f"The body was not whole after {BODY_TIMEOUT_S} s.") from error
            raise
        finally:
            del self._arriving[task]
            self._late.discard(task)

    def _look(self) -> None:
        """Give up on bodies that do not come. One look a second: a timer for each costs more than its request."""
        until = perf_counter() - BODY_TIMEOUT_S
        for task, since in self._arriving.items():
            if since < until and task not in self._late:
                self._late.add(task)
                task.cancel()
        self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look) if self._arriving else None
