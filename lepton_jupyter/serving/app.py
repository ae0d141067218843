"""The endpoint's ASGI application: who may ask, what is asked, and the answer. No request makes it raise."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from typing import Any, NamedTuple, TypeVar

import numpy as np

from lepton_jupyter.core.paths import EndpointFolder
from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.formats.figures import Figures
from lepton_jupyter.formats.packing import count_rows
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.serving import compression, content, inference, page
from lepton_jupyter.serving.answers import SAFE, Answer, HttpError, json_answer, refused
from lepton_jupyter.serving.bodies import Bodies, GoneError, Receive
from lepton_jupyter.serving.content import Read
from lepton_jupyter.serving.drain import Drain
from lepton_jupyter.serving.journal import Journal
from lepton_jupyter.serving.lanes import Chosen, Lane, Lanes
from lepton_jupyter.serving.metrics import SCORES, Metrics
from lepton_jupyter.serving.quick import Quick, Respond
from lepton_jupyter.serving.release import Release
from lepton_jupyter.serving.routes import OPEN, ROUTES, V2_MODEL, route_of
from lepton_jupyter.serving.scorer import Outputs
from lepton_jupyter.serving.tokens import ROWS, Gate, needed
from lepton_jupyter.serving.traffic import Traffic, defect

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
T = TypeVar("T")

MAX_IN_FLIGHT = 512
SMALL_BODY = 32 * 2**10  # bytes that are read at once; a larger body is read in a thread
SMALL_ANSWER = 256  # rows that are written at once

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}\Z")
_EXTENSIONS = ["binary_tensor_data", "statistics"]

logger = logging.getLogger(__name__)


class Request(NamedTuple):
    """One request on its way."""

    scope: Scope
    receive: Receive
    headers: dict[bytes, bytes]  # names in lower case
    request_id: str
    started: float


class App:
    """Answer requests with a release that is current when they arrive: the live one, or a canary beside it.

    Parameters
    ----------
    config : EndpointConfig
        Says who is let in, also before anything is loaded.
    folder : EndpointFolder
    journal : Journal
    """

    def __init__(self, config: EndpointConfig, folder: EndpointFolder, journal: Journal) -> None:
        self.config = config
        self.lanes: Lanes | None = None  # who answers at this moment; None before anything is loaded
        self.error = ""
        self.quick_urls: dict[bytes, str] = {}  # of requests that may go the short way, and how metrics name them
        self.metrics = Metrics(journal, lambda: self._n_in_flight)
        self.gate, self.drain = Gate(folder.token, config.let_in()), Drain(folder.drained)
        self._journal = journal
        self._prefix = os.urandom(4).hex()  # of the ids of requests that bring none
        self._numbers = count()
        self._traffic = Traffic(self.metrics, journal)
        self._reading = ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="read")
        self._n_in_flight = 0
        self._small_body = SMALL_BODY
        self._bodies = Bodies()

    def serve(self, release: Release, beside: Release | None = None, *, found: Figures | None = None) -> None:
        """Answer with this release from the next request on, and have one beside it: see `Traffic.serve`."""
        self.lanes = self._traffic.serve(release, beside, found)
        self._journal.follow(release, *([beside] if beside is not None else []))
        self.config, self.error = release.config, ""
        if release.schema.image is not None:  # decoding is long, however small the file
            self._small_body, self.quick_urls = -1, {}
            return
        self._small_body = SMALL_BODY
        names = dict.fromkeys((release.config.name, release.config.model))
        self.quick_urls = {b"/predict": "/predict", b"/invocations": "/invocations"} | {
            f"/v2/models/{name}/infer".encode(): "/v2/models/NAME/infer" for name in names
        }

    def close(self) -> None:
        """End the threads."""
        self._traffic.close()
        self._reading.shutdown(cancel_futures=True)
        self._journal.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        given = dict(scope["headers"])
        request = Request(scope, receive, given, self._request_id(given), time.perf_counter())
        route = route_of(scope["path"])
        try:
            answer = await self._answer(request, route)
        except HttpError as error:
            answer = self._refuse(request, route, error)
        except GoneError:
            self.metrics.answered(route, 499, time.perf_counter() - request.started)
            return
        except Exception:
            logger.exception("request %s on %s: a defect of ours", request.request_id, scope["path"])
            answer = self._refuse(request, route, defect())
        self.metrics.answered(route, answer.status, time.perf_counter() - request.started)
        headers = [
            *answer.headers,
            (b"content-length", str(len(answer.body)).encode()),
            (b"x-request-id", request.request_id.encode()),
            *SAFE,
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def _request_id(self, headers: dict[bytes, bytes]) -> str:
        said = headers.get(b"x-request-id")
        if said is not None and _REQUEST_ID.match(said):
            return said.decode("ascii")
        return f"{self._prefix}{next(self._numbers):08x}"

    # -- the short way

    def begin(self, headers: dict[bytes, bytes], url: bytes, body: bytes, respond: Respond) -> Quick | None:
        """Begin a small request for rows that is whole; ``respond(quick, answer)`` is called with its answer.

        None where anything about it is not as it should be: it goes the long way then, which says what.
        """
        started = time.perf_counter()
        lanes, route = self.lanes, self.quick_urls[url]
        if lanes is None or self._n_in_flight >= MAX_IN_FLIGHT:
            return None
        try:
            self.gate.check(headers.get(b"authorization"), ROWS)
            if route.startswith("/v2"):
                read = content.infer_reader(headers, url.decode("ascii").split("/")[3])
            else:
                read = content.reader(headers, content.READERS[route])
                if read in content.SLOW:
                    return None
            request_id = self._request_id(headers)
            chosen = lanes.choose(read, body, headers=headers, request_id=request_id)
        except Exception:
            return None
        n_rows = count_rows(chosen.asked.rows)
        if n_rows > SMALL_ANSWER:
            return None
        quick = Quick(chosen, respond, self._end, route=route, request_id=request_id, started=started)
        self._n_in_flight += 1
        chosen.lane.batcher.submit_to(quick, chosen.asked.rows, n_rows, quick)
        return quick

    def _end(self, quick: Quick, found: Outputs | BaseException | None) -> None:
        """Answer a request that went the short way; None: nobody waits for it."""
        self._n_in_flight -= 1
        if found is None:
            self.metrics.answered(quick.route, 499, quick.age_s)
            return
        request_id = quick.request_id
        try:
            if isinstance(found, BaseException):
                raise found
            answer = quick.chosen.asked.write(found, request_id)
        except Exception as error:
            refusal = self._traffic.failed(quick.chosen, request_id, error)
            self._note_refusal(request_id, quick.started, refusal)
            answer = refusal.answer(request_id, is_v2=quick.route.startswith("/v2"))
        else:
            seconds = quick.age_s
            self._traffic.answered(quick.chosen, found, request_id, latency_s=seconds, of_body_s=seconds)
        self.metrics.answered(quick.route, answer.status, quick.age_s)
        quick.respond(quick, answer)

    # -- the long way

    def _refuse(self, request: Request, route: str, error: HttpError) -> Answer:
        """Return a refusal; the request log keeps it where rows were sent by somebody who may."""
        if route in SCORES and error.status not in (401, 403, 405):
            self._note_refusal(request.request_id, request.started, error)
        return error.answer(request.request_id, is_v2=route.startswith("/v2"))

    def _note_refusal(self, request_id: str, started: float, error: HttpError) -> None:
        latency_ms = 1000 * (time.perf_counter() - started)
        said = error.error.message
        version = error.version or self.config.version
        self._journal.add_refused(version, request_id, latency_ms, status=error.status, error=said)

    async def _answer(self, request: Request, route: str) -> Answer:
        if route == "/" and page.is_wanted(request.headers.get(b"accept") or b""):
            _check_method(request, "GET")
            return page.answer()
        if route not in OPEN:
            self.gate.check(request.headers.get(b"authorization"), needed(request.scope["path"]))
        path = request.scope["path"]
        method = ROUTES.get(path)
        if method is None:
            model = V2_MODEL.match(path)
            if model is not None:
                return await self._answer_model(request, *model.groups())
            raise refused(404, f"Nothing is at '{path[:200]}'.", f"Known: {', '.join(ROUTES)}, /v2/models/NAME/infer.")
        _check_method(request, method)
        readers = content.READERS.get(path)
        if readers is not None:
            return await self._score(request, content.reader(request.headers, readers))
        return self._answer_about(path)

    @property
    def _is_ready(self) -> bool:
        return self.lanes is not None and not self.drain.is_on

    def _answer_about(self, path: str) -> Answer:
        is_ready = self._is_ready
        match path:
            case "/healthz" | "/v2/health/live":
                return json_answer({"live": True})
            case "/readyz" | "/v2/health/ready" | "/ping":
                return json_answer({"ready": is_ready}, 200 if is_ready else 503)
            case "/version":
                return Answer(200, _version().encode(), [(b"content-type", b"text/plain; charset=utf-8")])
            case "/v2/models/stats":
                return json_answer(self.metrics.statistics(self.config.name, self._serves()))
            case "/v2/repository/index":
                state = "READY" if is_ready else "UNAVAILABLE"
                versions = [lane.version for lane in self.lanes.answering] if self.lanes else [self.config.version]
                one = {"name": self.config.name, "state": state, "reason": self.error}
                return json_answer([one | {"version": version} for version in versions])
            case "/metrics":
                return self.metrics.answer()
            case "/admin/drain" | "/admin/resume":
                self.drain.set(path == "/admin/drain")
                return json_answer({"drained": self.drain.is_on, "in_flight": self._n_in_flight})
            case "/openapi.json":
                return json_answer(self._document())
            case "/v2":
                return json_answer({"name": "lepton_jupyter", "version": _version(), "extensions": _EXTENSIONS})
        about: dict[str, Any] = {
            "endpoint": self.config.name,
            "model": self.config.model,
            "version": self._serves(),
            "ready": is_ready,
            "routes": {path: method for path, method in ROUTES.items() if path != "/"}
            | {f"/v2/models/{self.config.name}/infer": "POST"},
        }
        if self.lanes is not None:
            schema = self.lanes.live.release.schema
            about["example"] = {"rows": [_example(schema)]}
            about |= {"columns": schema.columns, "image": schema.image}
        return json_answer(about)

    async def _answer_model(self, request: Request, name: str, version: str | None, action: str | None) -> Answer:
        _check_method(request, "POST" if action == "/infer" else "GET")
        known = (self.config.name, self.config.model)
        if name not in known:
            raise refused(404, f"No model named '{name[:64]}'. Known: {', '.join(dict.fromkeys(known))}.")
        lane = None
        if version is not None:
            lane = self._ready().named(version)
            if lane is None:
                versions = ", ".join(one.version for one in self._ready().answering)
                raise refused(404, f"No version '{version[:64]}' of '{name}'. Known: {versions}.")
        if action == "/ready":
            return json_answer({"name": name, "ready": self._is_ready}, 200 if self._is_ready else 503)
        if action == "/stats":
            return json_answer(self.metrics.statistics(name, lane.version if lane else self._serves()))
        if action == "/infer":
            return await self._score(request, content.infer_reader(request.headers, name), pinned=lane)
        return json_answer(inference.metadata((lane or self._ready().live).release, name))

    def _document(self) -> dict[str, Any]:
        from lepton_jupyter.serving import openapi  # a lazy import: few ask for it

        return openapi.describe(self._ready().live.release, self.config.name)

    def _serves(self) -> str:
        return self.lanes.live.version if self.lanes is not None else self.config.version

    async def _score(self, request: Request, read: Read, *, pinned: Lane | None = None) -> Answer:
        """Read the rows, score them beside those of others, and answer; with a release of this moment."""
        lanes = self._ready()
        coding = content.coding_of(request.headers)
        if self._n_in_flight >= MAX_IN_FLIGHT:
            raise refused(
                429, f"{MAX_IN_FLIGHT} requests wait already.", "Ask again.", headers=[(b"retry-after", b"1")]
            )
        self._n_in_flight += 1
        body = b""
        try:
            body = await self._bodies.read(request.receive, request.headers, self.config.max_body_bytes)
            began = time.perf_counter()
            choose = partial(
                lanes.choose,
                content.uncompressing(read, coding),
                body,
                headers=request.headers,
                request_id=request.request_id,
                pinned=pinned,
            )
            is_quick = len(body) <= self._small_body and not coding and read not in content.SLOW
            chosen = choose() if is_quick else await self._in_thread(choose)
            outputs, answer = await self._answer_rows(request, chosen)
            if len(answer.body) >= compression.SMALL and b"accept-encoding" in request.headers:
                answer = await self._in_thread(compression.compressed, answer, request.headers[b"accept-encoding"])
        finally:
            self._bodies.release(body)
            self._n_in_flight -= 1
        now = time.perf_counter()
        self._traffic.answered(
            chosen, outputs, request.request_id, latency_s=now - request.started, of_body_s=now - began
        )
        return answer

    async def _answer_rows(self, request: Request, chosen: Chosen) -> tuple[Outputs, Answer]:
        """Return what was found for the rows, and the answer that says it."""
        asked = chosen.asked
        try:
            # uvicorn's `receive` is a method of what knows that the client is gone
            outputs = await chosen.lane.batcher.submit(asked.rows, getattr(request.receive, "__self__", None))
            if len(outputs.prediction) <= SMALL_ANSWER:
                return outputs, asked.write(outputs, request.request_id)
            return outputs, await self._in_thread(asked.write, outputs, request.request_id)
        except asyncio.CancelledError as error:
            if getattr(getattr(request.receive, "__self__", None), "disconnected", False):
                raise GoneError from error
            raise
        except Exception as error:
            raise self._traffic.failed(chosen, request.request_id, error) from None

    async def _in_thread(self, work: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reading, work, *args)

    def _ready(self) -> Lanes:
        if self.lanes is None:
            raise refused(
                503, self.error or "The endpoint is starting.", "Ask again.", headers=[(b"retry-after", b"1")]
            )
        return self.lanes


def _example(schema: Schema) -> Any:
    if schema.tensor_shape is not None and schema.image is None:
        return np.zeros(schema.tensor_shape).tolist()
    return dict(schema.example)


def _check_method(request: Request, method: str) -> None:
    said = request.scope["method"]
    if said != method and not (said == "HEAD" and method == "GET"):
        allowed = "GET, HEAD" if method == "GET" else method
        raise refused(405, f"{said} is not answered there; {allowed} is.", headers=[(b"allow", allowed.encode())])


def _version() -> str:
    from importlib.metadata import version  # a lazy import: costs more than the rest of a start, for one route

    return version("lepton_jupyter")
