"""The endpoint's ASGI application: who may ask, what is asked, and the answer. No request makes it raise."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.serving.answers import Answer, HttpError, json_answer, refused
from lepton_jupyter.serving.inference import infer, metadata
from lepton_jupyter.serving.journal import Journal
from lepton_jupyter.serving.metrics import Metrics
from lepton_jupyter.serving.predict import Scored, predict
from lepton_jupyter.serving.release import Release

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Work = Callable[[Release, bytes, str], Scored]

MAX_IN_FLIGHT = 256
MAX_BYTES_IN_FLIGHT = 256 * 2**20  # bodies of all requests together
BODY_TIMEOUT_S = 120

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}\Z")
_V2_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(/ready|/infer)?\Z")
_ROUTES = {  # path: (method, name)
    "/": "GET",
    "/healthz": "GET",
    "/readyz": "GET",
    "/metrics": "GET",
    "/predict": "POST",
    "/v2": "GET",
    "/v2/health/live": "GET",
    "/v2/health/ready": "GET",
}
_OPEN = ("/healthz", "/readyz")
_SCORES = ("/predict", "/v2/models/NAME/infer")

logger = logging.getLogger(__name__)


class _GoneError(Exception):
    """The client went away before its request was whole."""


class Request(NamedTuple):
    """One request on its way."""

    scope: Scope
    receive: Receive
    request_id: str
    started: float

    def header(self, name: bytes) -> bytes | None:
        """Return the first header of this (lower-case) name."""
        return next((value for key, value in self.scope["headers"] if key == name), None)


class App:
    """Answer requests with the release that is current when they arrive.

    Parameters
    ----------
    config : EndpointConfig
        Says who is let in, also before anything is loaded.
    token_path : Path
        Named to who comes without a token.
    journal : Journal
    """

    def __init__(self, config: EndpointConfig, token_path: Path, journal: Journal) -> None:
        self.config = config
        self.release: Release | None = None
        self.error = ""
        self.metrics = Metrics(lambda: journal.n_lost)
        self._token_path = token_path
        self._journal = journal
        self._pool = ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="score")
        self._n_in_flight = 0
        self._n_bytes = 0

    def serve(self, release: Release) -> None:
        """Answer with this release from the next request on."""
        self.config = release.config
        self.release = release
        self.error = ""
        self.metrics.served(release.config)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)
        self._journal.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        request = Request(scope, receive, os.urandom(8).hex(), time.perf_counter())
        said = request.header(b"x-request-id")
        if said is not None and _REQUEST_ID.match(said):
            request = request._replace(request_id=said.decode("ascii"))
        route = _route(scope["path"])
        try:
            answer = await self._answer(request, route)
        except HttpError as error:
            answer = self._refuse(request, route, error)
        except _GoneError:
            self.metrics.answered(route, 499, time.perf_counter() - request.started)
            return
        except Exception:
            logger.exception("request %s on %s: a defect of ours", request.request_id, scope["path"])
            ours = HttpError(500, LeptonError("The endpoint failed; its log has the reason.", code="failed"))
            answer = self._refuse(request, route, ours)
        self.metrics.answered(route, answer.status, time.perf_counter() - request.started)
        headers = [
            *answer.headers,
            (b"content-length", str(len(answer.body)).encode()),
            (b"x-request-id", request.request_id.encode()),
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def _refuse(self, request: Request, route: str, error: HttpError) -> Answer:
        """Return a refusal; the request log keeps it where rows were sent by somebody who may."""
        if route in _SCORES and error.status not in (401, 405):
            latency_ms = 1000 * (time.perf_counter() - request.started)
            said = error.error.message
            self._journal.add_refused(
                self.config.version, request.request_id, latency_ms, status=error.status, error=said
            )
        return error.answer(request.request_id, is_v2=route.startswith("/v2"))

    async def _answer(self, request: Request, route: str) -> Answer:
        if route not in _OPEN:
            self._check_token(request)
        path = request.scope["path"]
        model = _V2_MODEL.match(path)
        if model is not None:
            return await self._answer_model(request, *model.groups())
        method = _ROUTES.get(path)
        if method is None:
            raise refused(404, f"Nothing is at '{path[:200]}'.", f"Known: {', '.join(_ROUTES)}, /v2/models/NAME/infer.")
        _check_method(request, method)
        if path == "/predict":
            return await self._score(request, predict)
        return self._answer_get(path)

    def _answer_get(self, path: str) -> Answer:
        is_ready = self.release is not None
        match path:
            case "/healthz":
                return json_answer({"live": True})
            case "/v2/health/live":
                return json_answer({"live": True})
            case "/readyz" | "/v2/health/ready":
                return json_answer({"ready": is_ready}, 200 if is_ready else 503)
            case "/metrics":
                return self.metrics.answer()
            case "/v2":
                return json_answer({"name": "lepton_jupyter", "version": _version(), "extensions": []})
        about: dict[str, Any] = {
            "endpoint": self.config.name,
            "model": self.config.model,
            "version": (self.release.config if self.release else self.config).version,
            "ready": is_ready,
            "routes": {path: method for path, method in _ROUTES.items() if path != "/"}
            | {f"/v2/models/{self.config.name}/infer": "POST"},
        }
        if self.release is not None:
            about["example"] = {"rows": [self.release.schema.example]}
        return json_answer(about)

    async def _answer_model(self, request: Request, name: str, version: str | None, action: str | None) -> Answer:
        _check_method(request, "POST" if action == "/infer" else "GET")
        known = (self.config.name, self.config.model)
        if name not in known:
            raise refused(404, f"No model named '{name[:64]}'. Known: {', '.join(dict.fromkeys(known))}.")
        serves = (self.release.config if self.release else self.config).version
        if version is not None and version not in (serves, serves.rpartition("@")[2]):
            raise refused(404, f"No version '{version[:64]}' of '{name}'. Known: {serves}.")
        if action == "/ready":
            is_ready = self.release is not None
            return json_answer({"name": name, "ready": is_ready}, 200 if is_ready else 503)
        if action == "/infer":
            return await self._score(request, partial(infer, name=name))
        return json_answer(metadata(self._ready(), name))

    async def _score(self, request: Request, work: Work) -> Answer:
        """Read the body and answer it in a thread, with the release of this moment."""
        release = self._ready()
        _check_content(request)
        if self._n_in_flight >= MAX_IN_FLIGHT:
            raise refused(
                429, f"{MAX_IN_FLIGHT} requests wait already.", "Ask again.", headers=[(b"retry-after", b"1")]
            )
        self._n_in_flight += 1
        self.metrics.in_flight.set(self._n_in_flight)
        body = b""
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await self._body(request, release.config.max_body_bytes)
            loop = asyncio.get_running_loop()
            scored = await loop.run_in_executor(self._pool, work, release, body, request.request_id)
        except TimeoutError as error:
            raise refused(408, f"The body was not whole after {BODY_TIMEOUT_S} s.") from error
        finally:
            self._n_bytes -= len(body)
            self._n_in_flight -= 1
            self.metrics.in_flight.set(self._n_in_flight)
        self.metrics.rows.inc(len(scored.outputs.prediction))
        self._journal.add(release, scored, request.request_id, 1000 * (time.perf_counter() - request.started))
        return scored.answer

    async def _body(self, request: Request, limit: int) -> bytes:
        """Return the body; its size stays in `_n_bytes` until the caller takes it out."""
        too_large = refused(413, f"The body is larger than {limit} bytes.", "Send the rows in several requests.")
        declared = request.header(b"content-length")
        if declared is not None and int(declared) > limit:  # the server has let digits through only
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise _GoneError
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                self._n_bytes += len(parts[-1])
                if size > limit:
                    raise too_large
                if self._n_bytes > MAX_BYTES_IN_FLIGHT:
                    raise refused(503, "Too much is under way.", "Ask again.", headers=[(b"retry-after", b"1")])
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
        except BaseException:
            self._n_bytes -= size
            raise

    def _ready(self) -> Release:
        if self.release is None:
            raise refused(
                503, self.error or "The endpoint is starting.", "Ask again.", headers=[(b"retry-after", b"1")]
            )
        return self.release

    def _check_token(self, request: Request) -> None:
        said = request.header(b"authorization") or b""
        scheme, _, token = said.partition(b" ")
        digest = hashlib.sha256(token.strip()).hexdigest()
        hashes = self.config.token_hashes
        is_known = any([hmac.compare_digest(digest, known) for known in hashes])  # noqa: C419  each is compared, in equal time
        if scheme.lower() != b"bearer" or not is_known:
            raise refused(
                401,
                "The token is wrong." if said else "A token is wanted.",
                f"Send 'Authorization: Bearer TOKEN'; the token is in {self._token_path}.",
                headers=[(b"www-authenticate", b"Bearer")],
            )


def _route(path: str) -> str:
    """Return the path as a metric names it: of a bounded number."""
    model = _V2_MODEL.match(path)
    if model is not None:
        return f"/v2/models/NAME{model[3] or ''}"
    return path if path in _ROUTES else "/v2/other" if path.startswith("/v2/") else "other"


def _check_method(request: Request, method: str) -> None:
    said = request.scope["method"]
    if said != method and not (said == "HEAD" and method == "GET"):
        allowed = "GET, HEAD" if method == "GET" else method
        raise refused(405, f"{said} is not answered there; {allowed} is.", headers=[(b"allow", allowed.encode())])


def _check_content(request: Request) -> None:
    coding = request.header(b"content-encoding")
    if coding not in (None, b"", b"identity"):
        raise refused(415, "The body is compressed.", "Send it as it is.")
    if request.header(b"inference-header-content-length") is not None:
        raise refused(415, "Binary tensors are not taken.", "Send JSON tensors (binary_data=False).")
    said = (request.header(b"content-type") or b"application/json").partition(b";")[0].strip().lower()
    if said != b"application/json" and not said.endswith(b"+json"):
        shown = said.decode("latin-1")[:80]
        raise refused(415, f"A body of '{shown}' is not taken.", "Send JSON with 'Content-Type: application/json'.")


def _version() -> str:
    from importlib.metadata import version  # a lazy import: costs more than the rest of a start, for one route

    return version("lepton_jupyter")
