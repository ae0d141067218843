"""Every route refuses who is not known, and who may not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lepton_jupyter.faces.server.routes import handlers
from lepton_jupyter.faces.server.verbs import CHANGES, STARTS

ROUTES = [
    ("GET", "api/v1/runs", "read"),
    ("GET", "api/v1/events", "read"),
    ("GET", "api/v1/runs/0123456789ab/events", "read"),
    ("GET", "runs/0123456789ab/report", "read"),
    ("GET", "endpoints/door", "execute"),
    ("GET", "endpoints/door/metrics", "execute"),
    ("POST", "endpoints/door/predict", "execute"),
    ("POST", "verbs/nonsense", "write"),
    *(("POST", f"verbs/{verb}", "write") for verb in CHANGES),
    *(("POST", f"verbs/{verb}", "execute") for verb in STARTS),
]


@pytest.mark.parametrize(("method", "path", "action"), ROUTES)
async def test_a_route_refuses_a_stranger(ask: Callable[..., Any], method: str, path: str, action: str) -> None:
    answer = await ask(path, method, token=None)
    is_page = path.endswith("/report")  # a page sends its reader to the login
    assert answer.code == (302 if is_page else 403), answer.body
    if is_page:
        assert "/login?next=" in answer.headers["Location"]


@pytest.mark.parametrize(("method", "path", "action"), ROUTES)
async def test_a_route_refuses_whom_the_authorizer_refuses(
    ask: Callable[..., Any], grant: Callable[..., None], method: str, path: str, action: str
) -> None:
    grant(*({"read", "write", "execute"} - {action}))
    answer = await ask(path, method)
    assert answer.code == 403, answer.body
    grant()
    assert (await ask(path, method)).code == 403


def test_the_table_of_this_test_has_every_route() -> None:
    import re

    for pattern, _ in handlers("/a%40b/"):
        assert any(re.fullmatch(pattern, f"/a%40b/lepton-jupyter/{path}") for _, path, _ in ROUTES), pattern


async def test_a_wrong_token_is_refused(ask: Callable[..., Any]) -> None:
    assert (await ask("api/v1/runs", token="nonsense")).code == 403


async def test_a_browser_needs_the_xsrf_token_to_change_something(
    ask: Callable[..., Any], jp_auth_header: dict[str, str]
) -> None:
    token = jp_auth_header["Authorization"].removeprefix("token ")
    first = await ask(f"api/v1/health?token={token}", token=None)
    cookie = first.headers["Set-Cookie"].partition(";")[0]
    assert (await ask("api/v1/health", token=None, headers={"Cookie": cookie})).code == 503  # it is known
    for path in ("verbs/delete", "endpoints/door/predict"):
        refused = await ask(path, "POST", token=None, headers={"Cookie": cookie})
        assert (refused.code, b"_xsrf" in refused.body) == (403, True)
        secret = "ab" * 16
        headers = {"Cookie": f"{cookie}; _xsrf={secret}", "X-XSRFToken": secret}
        assert (await ask(path, "POST", token=None, headers=headers)).code in (400, 404)
