"""``GET /v1/events`` (the board as one stream) and ``GET /v1/runs/REF/history`` (a run with its curves)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from lepton_jupyter.backend.board import KINDS, Board, Listener
from lepton_jupyter.backend.service import Service
from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.formats.events import EventReader
from lepton_jupyter.formats.views import RunView

PING_S = 15.0
N_RUNS = 50
MAX_POINTS = 300  # a metric: more than a card has pixels for

Curve = dict[str, list[tuple[float, float]]]


class BoardRoutes:
    """The routes, and the board behind them."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.board = Board(
            service.home.state_db, read=self._views, moving=self._moving, signature=service.endpoints.signature
        )

    def routes(self) -> list[Route]:
        """Return them; they go before ``/v1/runs/{ref:path}``."""
        return [Route("/v1/events", self.events), Route("/v1/runs/{ref:path}/history", self.history)]

    async def events(self, _: Request) -> Response:
        """Tell the whole board, then every change, as server-sent events, until the listener goes."""
        return StreamingResponse(self._tell(), media_type="text/event-stream")

    async def _tell(self) -> AsyncIterator[bytes]:
        listener = Listener(asyncio.get_running_loop())
        try:
            await run_in_threadpool(self.board.listen, listener)
            while not listener.is_over:
                yield await listener.next(PING_S) or b": ping\n\n"
        finally:
            self.board.leave(listener)

    async def history(self, request: Request) -> Response:
        """Answer ``{"view": …, "curve": {metric: [[step, value], …]}}``: what a card needs for its first picture."""
        view = await run_in_threadpool(self.service.run, request.path_params["ref"])
        curve = await run_in_threadpool(curve_of, self.service.home.run(view.run_id))
        return Response(msgspec.json.encode({"view": view, "curve": curve}), media_type="application/json")

    # -- what the board shows

    def _views(self) -> dict[str, Iterable[Struct]]:
        service = self.service
        newest = service.list_runs(None, N_RUNS)
        known = {view.run_id for view in newest}
        older = [run.view for run in service.runs.active() if run.view.run_id not in known]
        found: dict[str, Iterable[Struct]] = {
            "run": [*newest, *older],
            # an evaluation's tables are for its card: here they would be the most of every message
            "model": [msgspec.structs.replace(view, evaluation={}) for view in service.store.versions()],
            "endpoint": service.endpoints.views(),
        }
        for kind in ("schedule", "alert"):
            part = getattr(service, KINDS[kind], None)
            found[kind] = part.views() if part is not None else []
        return found

    def _moving(self, unfinished: Iterable[str]) -> list[RunView]:
        active = {run.view.run_id: run.view for run in self.service.runs.active()}
        for run_id in unfinished:
            if run_id not in active and (followed := self.service.runs.followed(run_id)) is not None:
                active[run_id] = followed.view
        return list(active.values())


def curve_of(folder: RunFolder, max_points: int = MAX_POINTS) -> Curve:
    """Return every metric of a run over its steps, thinned; first and newest point are always there.

    Returns
    -------
    dict
        ``(step, value)`` pairs by metric, finite ones only; without a step, the point's number stands for it.
    """
    series: dict[str, list[tuple[float, float]]] = {}
    counts: dict[str, int] = {}
    for _, event in EventReader(folder.events).read():
        if event.get("kind") != "metric" or not isinstance(event.get("values"), dict):
            continue
        for name, value in event["values"].items():
            at = counts[name] = counts.get(name, -1) + 1
            point = _point(event.get("step"), at, value)
            if point is not None:
                series.setdefault(name, []).append(point)
    return {name: _thin(points, max_points) for name, points in series.items()}


def _point(step: Any, at: int, value: Any) -> tuple[float, float] | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(at if step is None else step), float(value)


def _thin(points: list[tuple[float, float]], max_points: int) -> list[tuple[float, float]]:
    if len(points) <= max_points:
        return points
    stride = (len(points) - 1) / (max_points - 1)
    return [points[round(index * stride)] for index in range(max_points)]
