"""``endpoints/NAME/…``: an endpoint under the Jupyter server's address, let in by Jupyter, streamed both ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

import msgspec
import tornado.web
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import ensure_async, url_path_join
from tornado.httputil import HTTPHeaders
from tornado.iostream import StreamClosedError

from lepton_jupyter.client.trust import certificate_of
from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.names import check_name
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.replicas import is_any_held
from lepton_jupyter.faces.server.api import Handler
from lepton_jupyter.formats.endpoint import EndpointConfig

if TYPE_CHECKING:
    import httpx

N_PARTS = 8  # of a body, between the browser and the endpoint
HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
     "transfer-encoding", "upgrade")
)  # fmt: skip
OURS_ALONE = frozenset(("host", "cookie", "authorization", "x-xsrftoken", "origin", "referer"))
NOT_BACK = frozenset(("set-cookie", "content-security-policy", "access-control-allow-origin", "server", "date"))


def find_door(home: Home, name: str) -> tuple[EndpointConfig, str, str]:
    """Return where an endpoint listens, its owner's token, and its certificate where it has one (PEM).

    They are in its files: the backend need not be there.

    Raises
    ------
    LeptonError
        If there is none, or it is not running: its port may be a stranger's by now, who gets no token.
    """
    known = sorted(path.name for path in home.endpoints.glob("*") if (path / "endpoint.json").exists())
    folder = home.endpoint(check_name(name, "endpoint"))
    try:
        config = msgspec.json.decode(folder.config.read_bytes(), type=EndpointConfig)
        token = folder.token.read_text().strip()
    except (OSError, msgspec.DecodeError):
        raise unknown("endpoint", name, known) from None
    if not is_any_held(home.runtime().endpoint_lock(name)):
        raise LeptonError(
            f"Endpoint '{name}' is not running.", f"Deploy it: %lepton deploy {config.model} --as {name}",
            code="unavailable",
        )  # fmt: skip
    return config, token, certificate_of(config.url, folder.certificate)


@tornado.web.stream_request_body
class DoorHandler(Handler):
    """Pass a request on, and its answer back."""

    _upstream: asyncio.Task[httpx.Response] | None = None
    _door: EndpointConfig | None = None
    _n_bytes = 0

    async def prepare(self) -> None:  # type: ignore[override]  # as APIHandler itself
        """Let nobody in before the first byte of the body is read."""
        await super().prepare()
        if self.request.method == "OPTIONS":
            return
        message = f"User is not authorized to execute on resource: {self.auth_resource}."
        is_let_in = self.current_user is not None and await ensure_async(
            self.authorizer.is_authorized(self, self.current_user, "execute", self.auth_resource)
        )
        if not is_let_in:
            raise tornado.web.HTTPError(403, message)
        name = str(self.path_kwargs["name"])
        try:
            self._door, token, certificate = find_door(self.lepton.home, name)
        except LeptonError as error:
            self.refuse(error)
            return
        if int(self.request.headers.get("Content-Length", 0)) > self._door.max_body_bytes:
            self.refuse(self._too_large(), 413)
            return
        connection: Any = self.request.connection
        connection.set_max_body_size(self._door.max_body_bytes + 1)
        self._parts: asyncio.Queue[bytes | None] = asyncio.Queue(N_PARTS)
        client = await self.lepton.wire.local(certificate)
        self._upstream = asyncio.ensure_future(client.send(self._request(client, name, token), stream=True))

    def _too_large(self) -> LeptonError:
        limit = self._door.max_body_bytes if self._door is not None else 0
        return LeptonError(f"The body is larger than {limit} bytes.", "Send the rows in several requests.")

    def _request(self, client: httpx.AsyncClient, name: str, token: str) -> httpx.Request:
        assert self._door is not None
        base = url_path_join(self.base_url, "lepton-jupyter", "endpoints", name)
        path = self.request.path.partition(f"/lepton-jupyter/endpoints/{name}")[2] or "/"
        headers = [
            (key, value)
            for key, value in self.request.headers.get_all()
            if key.lower() not in HOP_BY_HOP | OURS_ALONE | _named(self.request.headers.get_list("Connection"))
            and not key.lower().startswith("x-forwarded-")
        ]
        headers += [
            ("Authorization", f"Bearer {token}"),
            ("X-Forwarded-Prefix", base.rstrip("/")),
            ("X-Forwarded-Proto", self.request.protocol),
            ("X-Forwarded-Host", self.request.host),
        ]
        if "Accept-Encoding" not in self.request.headers:
            headers.append(("Accept-Encoding", "identity"))
        url = f"{self._door.url}{path}" + (f"?{self.query}" if self.query else "")
        content = self._body() if self.request.method == "POST" else None
        return client.build_request(str(self.request.method), url, headers=headers, content=content)

    async def _body(self) -> AsyncIterator[bytes]:
        while (part := await self._parts.get()) is not None:
            yield part

    async def data_received(self, chunk: bytes) -> None:
        """Pass a part on; wait while the endpoint does not take it."""
        if self._upstream is None or self._upstream.done():
            return
        self._n_bytes += len(chunk)
        if self._door is not None and self._n_bytes > self._door.max_body_bytes:
            self._upstream.cancel()
            self.refuse(self._too_large(), 413)
            return
        put = asyncio.ensure_future(self._parts.put(chunk))
        await asyncio.wait({put, self._upstream}, return_when=asyncio.FIRST_COMPLETED)
        put.cancel()

    @tornado.web.authenticated
    @authorized("execute")
    async def get(self, name: str) -> None:
        """Pass it on."""
        await self._pass_on()

    @tornado.web.authenticated
    @authorized("execute")
    async def post(self, name: str) -> None:
        """Pass it on."""
        await self._pass_on()

    async def _pass_on(self) -> None:
        if self._upstream is None or self._finished:
            return
        import httpx  # lazy: by now it is loaded

        put = asyncio.ensure_future(self._parts.put(None))
        await asyncio.wait({self._upstream})
        put.cancel()
        if self._upstream.cancelled():
            return  # the browser has gone
        try:
            answer = self._upstream.result()
        except httpx.TransportError as error:
            text = f"Endpoint '{self.path_kwargs['name']}' does not answer: {error!r}."
            self.refuse(LeptonError(text, "Ask again in a moment.", code="unavailable"), 502)
            return
        try:
            await self._answer(answer)
        except StreamClosedError:
            pass
        finally:
            await answer.aclose()

    async def _answer(self, answer: httpx.Response) -> None:
        self.set_status(answer.status_code, answer.reason_phrase)
        self._headers = HTTPHeaders()
        not_back = HOP_BY_HOP | NOT_BACK | _named(answer.headers.get_list("connection"))
        for key, value in answer.headers.multi_items():
            if key.lower() not in not_back:
                self.add_header(key, value)
        self.set_header("Content-Security-Policy", "sandbox")
        self.set_header("X-Content-Type-Options", "nosniff")
        await self.flush()
        async for part in answer.aiter_raw():
            self.write(part)
            await self.flush()

    def finish(self, *args: Any, **keywords: Any) -> Any:
        """End the answer; its type stays the endpoint's."""
        if self._headers_written:
            self.update_api_activity()
            return super(APIHandler, self).finish(*args, **keywords)
        return super().finish(*args, **keywords)

    def on_connection_close(self) -> None:
        """The browser has gone: nothing more is asked for it."""
        if self._upstream is not None:
            self._upstream.cancel()


def _named(connection: Iterable[str]) -> frozenset[str]:
    """Return the headers that a Connection header names: they are for one hop only."""
    return frozenset(word.strip().lower() for value in connection for word in value.split(","))
