"""The routes of schedules: define, show, pause, fire, tick, and where the next report begins."""

from __future__ import annotations

from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lepton_jupyter.backend.schedules import Schedules
from lepton_jupyter.backend.wire import answer, body_of


class DefineBody(Struct):
    """``POST /v1/schedules``."""

    name: str
    generation: str


class FireBody(Struct):
    """``POST /v1/schedules/NAME/fire``."""

    why: str = ""


class ClockRoutes:
    """They speak to the schedules and to nothing else."""

    def __init__(self, schedules: Schedules) -> None:
        self.schedules = schedules

    def routes(self) -> list[Route]:
        """Return them."""
        return [
            Route("/v1/schedules", self.define, methods=["POST"]),
            Route("/v1/schedules", self.list, methods=["GET"]),
            Route("/v1/schedules/{name}", self.show, methods=["GET"]),
            Route("/v1/schedules/{name}/pause", self.pause, methods=["POST"]),
            Route("/v1/schedules/{name}/fire", self.fire, methods=["POST"]),
            Route("/v1/tick", self.tick, methods=["POST"]),
            Route("/v1/endpoints/{name}/window", self.window, methods=["GET"]),
        ]

    async def define(self, request: Request) -> Response:
        """Take a definition whose folder is written."""
        body = await body_of(request, DefineBody)
        return answer(await run_in_threadpool(self.schedules.define, body.name, body.generation))

    async def list(self, _: Request) -> Response:
        """List schedules."""
        return answer(await run_in_threadpool(self.schedules.views))

    async def show(self, request: Request) -> Response:
        """Show one schedule."""
        return answer(await run_in_threadpool(self.schedules.view, request.path_params["name"]))

    async def pause(self, request: Request) -> Response:
        """Pause one schedule."""
        return answer(await run_in_threadpool(self.schedules.pause, request.path_params["name"]))

    async def fire(self, request: Request) -> Response:
        """Fire one schedule now."""
        body = await body_of(request, FireBody)
        return answer(
            {"run_id": await run_in_threadpool(self.schedules.fire_now, request.path_params["name"], body.why)}
        )

    async def tick(self, _: Request) -> Response:
        """Fire what is due."""
        return answer(await run_in_threadpool(self.schedules.tick))

    async def window(self, request: Request) -> Response:
        """Say where the next report on an endpoint begins."""
        schedule = request.query_params.get("schedule") or None
        start = await run_in_threadpool(self.schedules.window_start, request.path_params["name"], schedule)
        return answer({"window_start": start})
