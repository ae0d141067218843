"""A bound socket and the server on it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Iterator

import uvicorn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.serving import sharing
from lepton_jupyter.serving.app import App
from lepton_jupyter.serving.protocol import EndpointProtocol

GRACE_S = 10
KEEP_ALIVE_S = 75
LOOK_PAUSE_S = 0.02

_LAST = (b"connection", b"close")

logger = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """uvicorn's, without its own signal handlers: the endpoint has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listener:
    """Serve an application on a port until told to stop.

    Parameters
    ----------
    host : str
    port : int
        0: any free one.
    is_shared : bool
        Whether others answer on it too. Then nobody is let in before `start`: they come to the others.
    is_first : bool
        Whether nobody else may have it yet; others may share it afterwards.

    Raises
    ------
    LeptonError
        If the port cannot be had; the message says why.
    """

    def __init__(self, host: str, port: int, *, is_shared: bool = False, is_first: bool = True) -> None:
        self._socket = _bind(host, port, is_shared=is_shared, is_first=is_first)
        self._is_shared = is_shared
        self.port: int = self._socket.getsockname()[1]
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether requests are answered."""
        return self._server is not None

    async def start(self, app: App) -> None:
        """Answer requests from now on."""
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]  # its messages are plain dicts
            http=EndpointProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.002)

    def share(self, is_shared: bool) -> None:
        """Let others answer on this port too, or no others from now on."""
        sharing.share(self._socket, is_shared)
        self._is_shared = is_shared

    async def leave(self) -> None:
        """Leave a port to the others: no client of theirs or ours is reset. Then `stop`.

        A client that is connected is told with its next answer that the connection ends. Who asks nothing for 10 s is
        hung up on by `stop`, as any idle client is after a while.
        """
        server = self._server
        if server is None:
            return
        deadline = asyncio.get_running_loop().time() + GRACE_S
        await self._close_door(server, deadline)
        server.config.encoded_headers.append(_LAST)  # of which uvicorn makes the others once a second
        server.server_state.default_headers = [*server.server_state.default_headers, _LAST]
        server.config.app.quick_urls = {}  # type: ignore[union-attr]  # the long way ends a connection after this header
        while server.server_state.connections and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(LOOK_PAUSE_S)

    async def _close_door(self, server: _Server, deadline: float) -> None:
        """Take every connection that has begun, and no other, and listen no more."""
        self._is_shared = False  # it is left
        try:
            sharing.refuse_new(self._socket)
        except OSError as error:
            logger.warning("connections that are beginning may be reset: %s", error)
        await asyncio.sleep(sharing.settle_s(self._socket))
        while sharing.n_waiting(self._socket) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0)  # each turn of the loop takes some
        for listening in server.servers:
            listening.close()
        self._socket.close()

    async def stop(self) -> None:
        """Take no new connection, answer what was asked, and close."""
        if self._server is not None and self._task is not None:
            if self._is_shared:
                await self._close_door(self._server, asyncio.get_running_loop().time() + GRACE_S)
            self._server.should_exit = True
            await self._task
        self._socket.close()


def _bind(host: str, port: int, *, is_shared: bool, is_first: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # its own connections of a moment ago do not count
    try:
        if is_shared and not is_first:
            sharing.share(bound, True)
        bound.bind((host, port))
        if is_shared:
            sharing.share(bound, True)
        else:
            bound.listen(1024)
    except (OSError, OverflowError) as error:
        bound.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            message = f"port {port} is in use"
        else:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            message = f"port {port} on '{host}' cannot be used: {reason}"
        raise LeptonError(message, "Deploy again with another --port, or without one.", code="conflict") from error
    bound.setblocking(False)
    return bound
