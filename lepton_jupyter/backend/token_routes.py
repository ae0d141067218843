"""The routes of endpoints' tokens: list them, make or replace one, revoke one. No token travels."""

from __future__ import annotations

from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lepton_jupyter.backend.endpoints import Endpoints
from lepton_jupyter.backend.wire import answer, body_of
from lepton_jupyter.formats.views import TokenRequest


class RevokeBody(Struct):
    """``POST /v1/endpoints/NAME/tokens/revoke``."""

    name: str
    who: str = ""


class TokenRoutes:
    """They speak to the endpoints and to nothing else."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints

    def routes(self) -> list[Route]:
        """Return them."""
        return [
            Route("/v1/endpoints/{name}/tokens", self.list, methods=["GET"]),
            Route("/v1/endpoints/{name}/tokens", self.make, methods=["POST"]),
            Route("/v1/endpoints/{name}/tokens/revoke", self.revoke, methods=["POST"]),
        ]

    async def list(self, request: Request) -> Response:
        """List an endpoint's tokens."""
        tokens, name = self.endpoints.tokens, request.path_params["name"]
        return answer(await run_in_threadpool(lambda: tokens.views(self.endpoints.row(name))))

    async def make(self, request: Request) -> Response:
        """Make a token, or replace one."""
        body, name = await body_of(request, TokenRequest), request.path_params["name"]
        return answer(await run_in_threadpool(lambda: self.endpoints.tokens.make(self.endpoints.row(name), body)))

    async def revoke(self, request: Request) -> Response:
        """End a token."""
        body, name = await body_of(request, RevokeBody), request.path_params["name"]
        tokens = self.endpoints.tokens
        return answer(await run_in_threadpool(lambda: tokens.revoke(self.endpoints.row(name), body.name, who=body.who)))
