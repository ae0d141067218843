"""HTTP over the backend's Unix socket: what is asked goes to a thread, what is told comes as JSON or as events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from lepton_jupyter.backend.alert_routes import AlertRoutes
from lepton_jupyter.backend.board_routes import BoardRoutes
from lepton_jupyter.backend.clock_routes import ClockRoutes
from lepton_jupyter.backend.service import Service
from lepton_jupyter.backend.token_routes import TokenRoutes
from lepton_jupyter.backend.wire import answer, body_of, encode, tell_error
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.formats.events import EventReader
from lepton_jupyter.formats.views import DeployRequest

FOLLOW_S = 0.1
PING_S = 1.0


class SubmitBody(msgspec.Struct):
    """``POST /v1/runs``."""

    run_id: str


class StopRunBody(msgspec.Struct):
    """``POST /v1/runs/ID/stop``."""

    why: str = ""


class AliasBody(msgspec.Struct):
    """``POST /v1/versions/alias``."""

    ref: str
    alias: str
    why: str = ""


class RefBody(msgspec.Struct):
    """``POST /v1/delete``."""

    ref: str


class StopBody(msgspec.Struct):
    """``POST /v1/stop``."""

    what: str


class App:
    """The routes. `stop` is called when a client asks the backend to end."""

    def __init__(self, service: Service, stop: Callable[[], None]) -> None:
        self.service = service
        self._stop = stop
        self._board = BoardRoutes(service)
        self.is_stopping = False

    def asgi(self) -> Starlette:
        """Return the application."""
        routes: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
            ("GET", "/v1/health", self.health),
            ("POST", "/v1/runs", self.submit),
            ("GET", "/v1/runs", self.runs),
            ("GET", "/v1/runs/{ref:path}/events", self.events),
            ("POST", "/v1/runs/{ref:path}/stop", self.stop_run),
            ("GET", "/v1/runs/{ref:path}", self.run),
            ("GET", "/v1/models", self.models),
            ("GET", "/v1/models/{name}/journal", self.journal),
            ("GET", "/v1/versions", self.version),
            ("POST", "/v1/versions/alias", self.alias),
            ("POST", "/v1/endpoints", self.deploy),
            ("GET", "/v1/endpoints", self.endpoints),
            ("GET", "/v1/endpoints/{name}", self.endpoint),
            ("POST", "/v1/endpoints/{name}/stop", self.stop_endpoint),
            ("POST", "/v1/endpoints/{name}/rollback", self.rollback),
            ("POST", "/v1/delete", self.delete),
            ("GET", "/v1/devices", self.devices),
            ("POST", "/v1/stop", self.stop),
        ]
        return Starlette(
            routes=[
                *self._board.routes(),
                *ClockRoutes(self.service.schedules).routes(),
                *AlertRoutes(self.service.alerts).routes(),
                *TokenRoutes(self.service.endpoints).routes(),
                *(Route(path, handler, methods=[method]) for method, path, handler in routes),
            ],
            exception_handlers={LeptonError: tell_error},
        )

    def end_streams(self) -> None:
        """Let every stream come to its end, so that the server can; from any thread."""
        self.is_stopping = True
        self._board.board.close()

    async def health(self, _: Request) -> Response:
        """Answer without a thread: also while all of them are busy."""
        return answer(self.service.health())

    async def submit(self, request: Request) -> Response:
        """Take a run."""
        body = await body_of(request, SubmitBody)
        return answer(await run_in_threadpool(self.service.runs.submit, body.run_id))

    async def runs(self, request: Request) -> Response:
        """List runs."""
        limit = request.query_params.get("limit", "50")
        if not limit.isdigit():
            raise LeptonError(f"'{limit}' is no number of runs.")
        return answer(await run_in_threadpool(self.service.list_runs, request.query_params.get("kind"), int(limit)))

    async def run(self, request: Request) -> Response:
        """Show one run."""
        return answer(await run_in_threadpool(self.service.run, request.path_params["ref"]))

    async def stop_run(self, request: Request) -> Response:
        """Ask a run to stop."""
        body = await body_of(request, StopRunBody)
        return answer(await run_in_threadpool(self.service.stop_run, request.path_params["ref"], body.why))

    async def models(self, _: Request) -> Response:
        """List versions."""
        return answer(await run_in_threadpool(self.service.store.versions))

    async def journal(self, request: Request) -> Response:
        """Tell what happened to a model."""
        return answer(await run_in_threadpool(self.service.journal.of, request.path_params["name"]))

    async def version(self, request: Request) -> Response:
        """Show one version."""
        return answer(await run_in_threadpool(self.service.versions.resolve, request.query_params.get("ref", "")))

    async def alias(self, request: Request) -> Response:
        """Move an alias."""
        body = await body_of(request, AliasBody)
        return answer(await run_in_threadpool(self.service.promote, body.ref, body.alias, body.why))

    async def deploy(self, request: Request) -> Response:
        """Serve a version."""
        body = await body_of(request, DeployRequest)
        return answer(await run_in_threadpool(self.service.deploy, body))

    async def endpoints(self, _: Request) -> Response:
        """List endpoints."""
        return answer(await run_in_threadpool(self.service.endpoints.views))

    async def endpoint(self, request: Request) -> Response:
        """Show one endpoint."""
        endpoints, name = self.service.endpoints, request.path_params["name"]
        return answer(await run_in_threadpool(lambda: endpoints.view(endpoints.row(name))))

    async def stop_endpoint(self, request: Request) -> Response:
        """Stop an endpoint."""
        return answer(await run_in_threadpool(self.service.endpoints.stop, request.path_params["name"]))

    async def rollback(self, request: Request) -> Response:
        """Put an endpoint back."""
        return answer(await run_in_threadpool(self.service.endpoints.rollback, request.path_params["name"]))

    async def delete(self, request: Request) -> Response:
        """Remove something."""
        body = await body_of(request, RefBody)
        return answer({"deleted": await run_in_threadpool(self.service.delete, body.ref)})

    async def devices(self, _: Request) -> Response:
        """List devices."""
        return answer(await run_in_threadpool(self.service.runs.devices))

    async def stop(self, request: Request) -> Response:
        """End the backend and its keeper; runs and endpoints go on."""
        body = await body_of(request, StopBody)
        if body.what != "backend":
            raise LeptonError(f"'{body.what}' cannot be stopped here. Known: backend.")
        self.end_streams()
        self.service.runs.is_accepting = False
        await run_in_threadpool(self.service.dismiss_keeper)
        self._stop()
        return answer({"stopped": "backend"})

    async def events(self, request: Request) -> Response:
        """Tell a run's events from a sequence number on, as server-sent events, until it has ended."""
        after = request.query_params.get("after", "0")
        if not after.isdigit():
            raise LeptonError(f"'{after}' is no sequence number.")
        view = await run_in_threadpool(self.service.run, request.path_params["ref"])
        return StreamingResponse(self._tell(view.run_id, int(after)), media_type="text/event-stream")

    async def _tell(self, run_id: str, after: int) -> AsyncIterator[bytes]:
        reader = EventReader(self.service.home.run(run_id).events)
        told_at = time.monotonic()
        while not self.is_stopping:
            followed = self.service.runs.followed(run_id)
            has_ended = followed is None or followed.view.state in ENDED
            if followed is None or followed.view.seq > after:
                events = await run_in_threadpool(self._new_events, run_id, after, reader)
                for event in events:
                    after = event.get("seq", after)
                    yield b"id: %d\ndata: %s\n\n" % (after, encode(event))
                    told_at = time.monotonic()
            if has_ended:
                view = await run_in_threadpool(self.service.run, run_id)
                yield b"event: end\nid: %d\ndata: %s\n\n" % (max(after, view.seq), encode(view))
                return
            if time.monotonic() - told_at > PING_S:
                told_at = time.monotonic()
                yield b": ping\n\n"
            await asyncio.sleep(FOLLOW_S)

    def _new_events(self, run_id: str, after: int, reader: EventReader) -> list[dict[str, Any]]:
        followed = self.service.runs.followed(run_id)
        if followed is not None:
            return list(followed.events_after(after, reader))
        return [
            {key: value for key, value in event.items() if key != "read"}
            for _, event in reader.read()
            if event.get("seq", 0) > after
        ]
