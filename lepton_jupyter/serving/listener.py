"""A bound socket and the server on it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import Iterator

import uvicorn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.serving import sharing
from lepton_jupyter.serving.app import App
from lepton_jupyter.serving.protocol import EndpointProtocol
from lepton_jupyter.serving.tls import Certificate

GRACE_S = 10
KEEP_ALIVE_S = 75
LEAVE_S = 1.0  # that a connection has for one more request, before it is closed for another listener
LOOK_PAUSE_S = 0.02
BACKLOG = 1024

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
    tls : Certificate or None
        None: plain HTTP.
    before : Listener or None
        The one whose place it takes: it may have the same port, and loses no connection that comes meanwhile.
    is_shared : bool
        Whether others answer on it too. Then nobody is let in before `start`: they come to the others.
    is_first : bool
        Whether nobody else may have it yet; others may share it afterwards.

    Raises
    ------
    LeptonError
        If the port cannot be had; the message says why.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: Certificate | None = None,
        before: Listener | None = None,
        is_shared: bool = False,
        is_first: bool = True,
    ) -> None:
        self.host, self.tls = host, tls
        self._is_shared = is_shared
        if before is None or before.port != port:
            self._socket = _bind(host, port, is_shared=is_shared, is_first=is_first)
        elif before.host == host:
            self._socket = before._socket.dup()  # one queue: what waits in it is accepted by either
        else:
            self._socket = _bind_beside(before, host, port, is_shared=is_shared)
        self.port: int = self._socket.getsockname()[1]
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._late: list[asyncio.Task[None]] = []

    def is_moved(self, config: EndpointConfig) -> bool:
        """Whether another listener is wanted: for another address, or for TLS where there was none, or none.

        Another certificate in the same place is shown from now on.

        Raises
        ------
        LeptonError
            If the certificate cannot be used; nothing has changed then.
        """
        is_same = (self.host, self.port) == (config.host, config.port or self.port)
        if is_same and self.tls is not None and config.options.tls_cert:
            self.tls.follow(config.options)
            return False
        return not is_same or (self.tls is not None) != bool(config.options.tls_cert)

    @property
    def _handshake_s(self) -> float:
        """How long a client that was taken may be in no list yet: with TLS, until both know each other."""
        return LEAVE_S if self.tls is not None else 0.0

    @property
    def is_open(self) -> bool:
        """Whether requests are answered."""
        return self._server is not None

    async def start(self, app: App) -> None:
        """Answer requests from now on.

        Raises
        ------
        LeptonError
            If somebody else listens on a port that was to be shared.
        """
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
        if self._is_shared:
            _listen(self._socket, self.host, self.port)  # else a failure is not told: uvloop hangs up in silence
        config.load()
        config.ssl = self.tls.context if self.tls is not None else None
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
        if self._server is None:
            return
        deadline = time.monotonic() + GRACE_S
        await self._close_door(self._server, deadline)
        await _send_off(self._server, deadline, at_least_s=self._handshake_s)

    def retire(self) -> None:
        """Take no new connection: what waits in the queue is taken in, what comes is another listener's."""
        if self._server is None:
            return
        self._is_shared = False  # its queue is the other's
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
            at_least_s = self._handshake_s if self._is_shared else 0.0
            if self._is_shared:
                await self._close_door(self._server, time.monotonic() + GRACE_S)
            if self._late and leave_s:
                await asyncio.wait(self._late, timeout=leave_s)
            await _send_off(self._server, time.monotonic() + max(leave_s, at_least_s), at_least_s=at_least_s)
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

    async def _close_door(self, server: _Server, deadline: float) -> None:
        """Take every connection that has begun, and no other, and listen no more."""
        self._is_shared = False  # it is left
        try:
            sharing.refuse_new(self._socket)
        except OSError as error:
            logger.warning("connections that are beginning may be reset: %s", error)
        await asyncio.sleep(sharing.settle_s(self._socket))
        while sharing.n_waiting(self._socket) and time.monotonic() < deadline:
            await asyncio.sleep(0)  # each turn of the loop takes some
        for listening in server.servers:
            listening.close()
        self._socket.close()


async def _send_off(server: _Server, deadline: float, *, at_least_s: float = 0.0) -> None:
    """Tell each client with its next answer that its connection ends, until none is left, or it is late."""
    soonest = min(deadline, time.monotonic() + at_least_s)
    while (server.server_state.connections and time.monotonic() < deadline) or time.monotonic() < soonest:
        for connection in server.server_state.connections:
            if isinstance(connection, EndpointProtocol):
                connection.leave()
        await asyncio.sleep(LOOK_PAUSE_S)


def _accept_all(listening: socket.socket) -> Iterator[socket.socket]:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:  # nothing waits, or another listener was faster
            return
        connection.setblocking(False)
        yield connection


def _bind_beside(before: Listener, host: str, port: int, *, is_shared: bool) -> socket.socket:
    """Bind to another address of a port that is ours already: 127.0.0.1 and all addresses overlap."""
    sharing.share(before._socket, True)
    try:
        return _bind(host, port, is_shared=is_shared, is_first=False)
    finally:
        sharing.share(before._socket, before._is_shared)


def _bind(host: str, port: int, *, is_shared: bool, is_first: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # its own connections of a moment ago do not count
    try:
        sharing.share(bound, not is_first)
        bound.bind((host, port))
        if not is_shared:
            bound.listen(BACKLOG)  # which looks at the port once more
        sharing.share(bound, is_shared)
    except (OSError, OverflowError) as error:
        bound.close()
        raise _not_had(host, port, error) from error
    bound.setblocking(False)
    return bound


def _listen(bound: socket.socket, host: str, port: int) -> None:
    try:
        bound.listen(BACKLOG)
    except OSError as error:
        raise _not_had(host, port, error) from error


def _not_had(host: str, port: int, error: OSError | OverflowError) -> LeptonError:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        message = f"port {port} is in use"
    else:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        message = f"port {port} on '{host}' cannot be used: {reason}"
    return LeptonError(message, "Deploy again with another --port, or without one.", code="conflict")
