"""A real Jupyter server with our extension, under a base URL with a prefix.

Star imports, not ``pytest_plugins``: their autouse fixtures are then this folder's alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jupyter_server.auth import Authorizer
from pytest_jupyter.jupyter_core import *  # noqa: F403
from pytest_jupyter.jupyter_server import *  # noqa: F403
from pytest_jupyter.pytest_tornasync import *  # noqa: F403
from tornado.httpclient import AsyncHTTPClient, HTTPRequest

from lepton_jupyter.core.paths import Home
from tests.backend.conftest import mlflow_tables, prepare, saved  # noqa: F401


class Picky(Authorizer):
    """Grants what it was told to grant, on our resource; everything else to everybody."""

    granted: tuple[str, ...] = ("read", "write", "execute")

    def is_authorized(self, handler: Any, user: Any, action: str, resource: str) -> bool:
        """Whether."""
        return resource != "lepton" or action in type(self).granted


@pytest.fixture
def grant(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say what users may do with us: ``grant("read")``."""

    def only(*actions: str) -> None:
        monkeypatch.setattr(Picky, "granted", actions)

    return only


@pytest.fixture
def jp_server_config(home: Home) -> dict[str, Any]:  # the home first: the extension reads it as it is loaded
    """The server's configuration."""
    return {
        "ServerApp": {
            "jpserver_extensions": {"lepton_jupyter": True},
            "allow_unauthenticated_access": False,
            "authorizer_class": Picky,
        }
    }


@pytest.fixture
def lepton(jp_serverapp: Any, jp_asyncio_loop: Any) -> Iterator[Any]:
    """The extension of the server."""
    extension = jp_serverapp.web_app.settings["lepton_jupyter"]
    yield extension
    extension.close()
    jp_asyncio_loop.run_until_complete(extension.wire.close())


@pytest.fixture
def ask(
    lepton: Any, jp_auth_header: dict[str, str], http_server: Any, jp_http_port: int, jp_base_url: str
) -> Callable[..., Any]:
    """Ask one of our routes; the answer comes also where it is an error. ``token=None``: by a stranger."""
    known = jp_auth_header["Authorization"].removeprefix("token ")

    async def fetch(path: str, method: str = "GET", *, token: str | None = known, **more: Any) -> Any:
        headers = {**({"Authorization": f"token {token}"} if token else {}), **more.pop("headers", {})}
        url = f"http://127.0.0.1:{jp_http_port}{jp_base_url}lepton-jupyter/{path}"
        if method == "POST" and "body" not in more and "body_producer" not in more:
            more["body"] = json.dumps(more.pop("fields", {}))
        request = HTTPRequest(
            url, method=method, headers=headers, follow_redirects=False, **{"request_timeout": 60, **more}
        )
        return await AsyncHTTPClient().fetch(request, raise_error=False)

    return fetch
