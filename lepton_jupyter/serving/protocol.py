"""HTTP on a connection: uvicorn's, with a bounded head, and with a short way for small requests for rows.

A small request that is whole when it arrives needs no task, no event and no timer of its own: it goes straight to
`App.begin`, and its answer is one write. Whatever is not as simple as that goes uvicorn's way, from its head on.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from lepton_jupyter.serving.answers import SAFE, Answer
from lepton_jupyter.serving.app import SMALL_BODY, App
from lepton_jupyter.serving.quick import Quick

MAX_HEAD_BYTES = 64 * 2**10  # of a request line and all headers
MAX_HEADERS = 256
LINGER_S = 1.0
_SAFE = b"\r\n" + b"".join(name + b": " + value + b"\r\n" for name, value in SAFE)
_ENDINGS = {True: _SAFE + b"\r\n", False: _SAFE + b"connection: close\r\n\r\n"}  # of the head, where it is kept alive
_NOT_QUICK = (b"expect", b"transfer-encoding", b"content-encoding", b"upgrade")


class EndpointProtocol(HttpToolsProtocol):
    """One connection to an endpoint."""

    app: App  # type: ignore[assignment]  # as `Listener` gives it to uvicorn

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._n_head = 0
        self._parts: list[bytes] | None = None  # of the body of a request that may be quick
        self._given: dict[bytes, bytes] = {}
        self._is_head_too_large = False
        self._quiet_since = 0.0
        self._looking: asyncio.TimerHandle | None = None
        self._is_leaving = False

    # -- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; a client that sends no whole request is sent away, as one that sends no other."""
        super().connection_made(transport)
        self._quiet_since = self.loop.time()
        self._looking = self.loop.call_later(self.timeout_keep_alive, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; who waits for an answer is gone."""
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Close a connection that has been quiet for long. One timer a connection: one a request costs too much."""
        is_busy = self.cycle is not None and not self.cycle.response_complete
        left_s = self.timeout_keep_alive - (self.loop.time() - self._quiet_since)
        if self.transport.is_closing():
            return
        if not is_busy and left_s <= 0:
            self.transport.close()
            return
        self._looking = self.loop.call_later(max(left_s, 1.0), self._look)

    def leave(self) -> None:
        """Answer one more request, in which the client is told that the connection ends with it."""
        self._is_leaving = True
        self._is_free = lambda: False  # type: ignore[method-assign]  # no look at a flag on the short way
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    # -- a request

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        if self._is_head_too_large:
            return
        super().data_received(data)
        if self._parts is not None and self.parser is not None:  # more of the body is still on its way
            parts, self._parts = self._parts, None
            self._go_on()
            for part in parts:
                super().on_body(part)

    def on_message_begin(self) -> None:
        """Begin a request; what uvicorn needs is made once it is clear that it goes its way."""
        self.url = b""
        self.headers = []
        self._n_head = 0

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request line."""
        self.url += url
        self._n_head += len(url)
        if self._n_head > MAX_HEAD_BYTES:
            self._refuse_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self.headers.append((name.lower(), value))
        self._n_head += len(name) + len(value)
        if self._n_head > MAX_HEAD_BYTES:
            self._refuse_head()

    def _refuse_head(self) -> None:
        self._is_head_too_large = True
        raise ValueError("the head is too large")  # the parser stops, and `send_400_response` is called

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or more of it than is taken."""
        if self.transport.is_closing():
            return
        if not self._is_head_too_large:
            super().send_400_response(msg)
            return
        text = f"Request line and headers are larger than {MAX_HEAD_BYTES} bytes, or more than {MAX_HEADERS}."
        head = f"content-type: text/plain\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n"
        self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\n" + head.encode() + text.encode())
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)  # at once, what still comes would wipe the answer out

    def on_headers_complete(self) -> None:
        """Choose the way of this request."""
        if len(self.headers) > MAX_HEADERS:
            self._refuse_head()
        if self.url in self.app.quick_urls and self._is_free() and self.parser.get_method() == b"POST":
            given = dict(self.headers)
            if not any([name in given for name in _NOT_QUICK]):  # noqa: C419  a list is faster
                self._given, self._parts = given, []
                return
        self._go_on()

    def _is_free(self) -> bool:
        """Whether nothing else is under way on this connection, and it stays open."""
        is_idle = (self.cycle is None or self.cycle.response_complete) and not self.pipeline
        is_plain = self.parser.get_http_version() == "1.1" and self.parser.should_keep_alive()
        return is_idle and is_plain and not self.flow.write_paused

    def _go_on(self) -> None:
        """Go uvicorn's way, as if the head had just come."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()
        if self._is_leaving and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        if self._parts is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """Answer a request that was whole, or let the others know that theirs is."""
        parts = self._parts
        if parts is None:
            super().on_message_complete()
            return
        self._parts = None
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        if len(body) <= SMALL_BODY and not self.transport.is_closing():
            quick = self.app.begin(self._given, self.url, body, self._respond)
            if quick is not None:
                self.cycle = quick  # type: ignore[assignment]  # has what is asked of one here
                return
        self._go_on()
        if body:
            super().on_body(body)
        super().on_message_complete()

    def _respond(self, quick: Quick, answer: Answer) -> None:
        """Write the answer of a quick request, and go on with what came behind it."""
        parts = [STATUS_LINE[answer.status]]
        for name, value in (*self.server_state.default_headers, *answer.headers):
            parts += (name, b": ", value, b"\r\n")
        length, name = str(len(answer.body)).encode(), quick.request_id.encode()
        parts += (b"content-length: ", length, b"\r\nx-request-id: ", name, _ENDINGS[quick.keep_alive], answer.body)
        if not self.transport.is_closing():
            self.transport.write(b"".join(parts))
        quick.response_complete = True
        self.server_state.total_requests += 1
        self._quiet_since = self.loop.time()
        if not quick.keep_alive:
            self.transport.close()
        elif self.pipeline:
            self.flow.resume_reading()
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Go on after an answer that went uvicorn's way."""
        self._quiet_since = self.loop.time()
        super().on_response_complete()
