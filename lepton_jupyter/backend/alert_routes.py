"""The routes of alerts: list them, acknowledge one, silence one."""

from __future__ import annotations

from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lepton_jupyter.backend.alerts import Alerts
from lepton_jupyter.backend.wire import answer, body_of
from lepton_jupyter.core.errors import LeptonError


class AcknowledgeBody(Struct):
    """``POST /v1/alerts/ID/ack``."""

    why: str
    who: str = ""


class SilenceBody(Struct):
    """``POST /v1/alerts/ID/silence``; `until` in seconds since 1970, UTC."""

    until: float
    why: str
    who: str = ""


class AlertRoutes:
    """They speak to the alerts and to nothing else."""

    def __init__(self, alerts: Alerts) -> None:
        self.alerts = alerts

    def routes(self) -> list[Route]:
        """Return them."""
        return [
            Route("/v1/alerts", self.list, methods=["GET"]),
            Route("/v1/alerts/{number}/ack", self.acknowledge, methods=["POST"]),
            Route("/v1/alerts/{number}/silence", self.silence, methods=["POST"]),
        ]

    async def list(self, request: Request) -> Response:
        """List alerts, of all schedules or of one."""
        return answer(await run_in_threadpool(self.alerts.views, request.query_params.get("schedule") or None))

    async def acknowledge(self, request: Request) -> Response:
        """Record who has seen an alert."""
        body = await body_of(request, AcknowledgeBody)
        return answer(await run_in_threadpool(self.alerts.acknowledge, _number(request), body.who, body.why))

    async def silence(self, request: Request) -> Response:
        """Send nothing about an alert for a while."""
        body = await body_of(request, SilenceBody)
        return answer(await run_in_threadpool(self.alerts.silence, _number(request), body.until, body.who, body.why))


def _number(request: Request) -> int:
    text = request.path_params["number"]
    if not text.isdecimal() or len(text) > 15:
        raise LeptonError(f"'{text}' is no number of an alert.", "List them: %lepton alerts", code="not_found")
    return int(text)
