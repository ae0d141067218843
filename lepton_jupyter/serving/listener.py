"""A bound socket and the server on it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Iterator

import uvicorn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.serving.app import App
from lepton_jupyter.serving.protocol import EndpointProtocol

GRACE_S = 10
KEEP_ALIVE_S = 75


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

    Raises
    ------
    LeptonError
        If the port cannot be had; the message says why.
    """

    def __init__(self, host: str, port: int) -> None:
        self._socket = _bind(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

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

    async def stop(self) -> None:
        """Take no new connection, answer what was asked, and close."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
        self._socket.close()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # its own connections of a moment ago do not count
    try:
        bound.bind((host, port))
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
