"""A bound socket and the server on it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator

import uvicorn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.serving.app import App
from lepton_jupyter.serving.protocol import EndpointProtocol
from lepton_jupyter.serving.tls import Certificate

GRACE_S = 10
LEAVE_S = 1.0  # that a connection has for one more request, before it is closed for another listener
BACKLOG = 1024


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
    tls : Certificate or None
        None: plain HTTP.
    before : Listener or None
        The one whose place it takes: it may have the same port, and loses no connection that comes meanwhile.

    Raises
    ------
    LeptonError
        If the port cannot be had; the message says why.
    """

    def __init__(self, host: str, port: int, *, tls: Certificate | None = None, before: Listener | None = None) -> None:
        self.host, self.tls = host, tls
        if before is None or before.port != port:
            self._socket = _bind(host, port)
        elif before.host == host:
            self._socket = before._socket.dup()  # one queue: what waits in it is accepted by either
        else:
            self._socket = _bind_beside(before._socket, host, port)
        self.port: int = self._socket.getsockname()[1]
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._late: list[asyncio.Task[None]] = []

    def moved(self, config: EndpointConfig) -> Listener | None:
        """Return a new listener where another address is wanted, or TLS where there was none, or none; else None.

        Another certificate in the same place is shown from now on.

        Raises
        ------
        LeptonError
            If the port cannot be had, or the certificate cannot be used; nothing has changed then.
        """
        port = config.port or self.port
        is_same = (self.host, self.port) == (config.host, port)
        if is_same and self.tls is not None and config.options.tls_cert:
            self.tls.follow(config.options)
            return None
        tls = Certificate.of(config.options)
        if is_same and self.tls is None and tls is None:
            return None
        return Listener(config.host, port, tls=tls, before=self)

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
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACE_S,
        )
        config.load()
        config.ssl = self.tls.context if self.tls is not None else None
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.002)

    def retire(self) -> None:
        """Take no new connection: what waits in the queue is taken in, what comes is another listener's."""
        if self._server is None:
            return
        waiting = self._socket.dup()
        for accepting in self._server.servers:
            accepting.close()
        self._late = [asyncio.create_task(self._take_in(self._server, each)) for each in _accept_all(waiting)]
        waiting.close()
        self._socket.close()

    async def stop(self, *, leave_s: float = 0.0) -> None:
        """Take no new connection, answer what was asked, and close.

        Parameters
        ----------
        leave_s : float
            How long those that are open may still ask once, to be told then that they end.
        """
        if self._server is not None and self._task is not None:
            end = time.monotonic() + leave_s
            if self._late and leave_s:
                await asyncio.wait(self._late, timeout=leave_s)
            while self._server.server_state.connections and time.monotonic() < end:
                for connection in self._server.server_state.connections:
                    if isinstance(connection, EndpointProtocol):
                        connection.leave()
                await asyncio.sleep(0.02)
            self._server.should_exit = True
            await self._task
        self._socket.close()

    async def _take_in(self, server: _Server, connection: socket.socket) -> None:
        """Have a connection answered, as the server has those that it accepts itself."""

        def protocol() -> EndpointProtocol:
            state = server.lifespan.state
            return EndpointProtocol(config=server.config, server_state=server.server_state, app_state=state)

        tls = self.tls.context if self.tls is not None else None
        with contextlib.suppress(OSError):  # it has gone
            await asyncio.get_running_loop().connect_accepted_socket(protocol, connection, ssl=tls)


def _accept_all(listening: socket.socket) -> Iterator[socket.socket]:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:  # nothing waits, or another listener was faster
            return
        connection.setblocking(False)
        yield connection


def _bind_beside(before: socket.socket, host: str, port: int) -> socket.socket:
    """Bind to another address of a port that is ours already: 127.0.0.1 and all addresses overlap."""
    before.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        return _bind(host, port, is_shared=True)
    finally:
        before.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)


def _bind(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # its own connections of a moment ago do not count
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(is_shared))
    try:
        bound.bind((host, port))
        bound.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        bound.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            message = f"port {port} is in use"
        else:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            message = f"port {port} on '{host}' cannot be used: {reason}"
        raise LeptonError(message, "Deploy again with another --port, or without one.", code="conflict") from error
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
    bound.setblocking(False)
    return bound
