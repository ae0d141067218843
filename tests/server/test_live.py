"""What a browser is told, over a real backend."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from tornado.httpclient import HTTPClientError

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.paths import Home

pytestmark = pytest.mark.slow


class Page:
    """The events that one page has been told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self._rest = b""

    def take(self, part: bytes) -> None:
        """Read what came."""
        *whole, self._rest = (self._rest + part).split(b"\n\n")
        for text in whole:
            fields = dict(line.split(": ", 1) for line in text.decode().splitlines() if not line.startswith(":"))
            if fields:
                self.events.append((fields["event"], json.loads(fields["data"])))

    def of(self, kind: str) -> list[Any]:
        """Return what was said about one kind."""
        return [data for name, data in self.events if name == kind]


async def until(condition: Callable[[], Any], timeout_s: float = 60) -> Any:
    """Wait for a condition without holding up the server's loop."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.05)
    return found


@pytest.fixture
def look(ask: Callable[..., Any], jp_asyncio_loop: Any) -> Any:
    """Open pages that listen; their requests are cancelled afterwards."""
    tasks: list[asyncio.Task[Any]] = []

    def open_page() -> Page:
        page = Page()
        tasks.append(asyncio.ensure_future(ask("api/v1/events", streaming_callback=page.take, request_timeout=0)))
        return page

    yield open_page
    for task in tasks:
        task.cancel()
    jp_asyncio_loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


async def test_looking_starts_no_backend_and_a_page_is_told_when_one_comes(
    look: Callable[[], Page], ask: Callable[..., Any], home: Home
) -> None:
    page = look()
    board = (await until(lambda: page.of("board")))[0]
    assert board["is_up"] is False
    assert board["runs"] == board["models"] == board["endpoints"] == board["schedules"] == board["alerts"] == []
    answer = await ask("api/v1/runs")
    assert answer.code == 503
    assert json.loads(answer.body)["error"]["code"] == "unavailable"
    assert not home.runtime().socket.exists()
    await asyncio.to_thread(Client.connect, home)
    await until(lambda: page.of("board")[-1]["is_up"])


async def test_pages_share_one_stream_and_see_changes_through_a_kill_of_the_backend(
    look: Callable[[], Page], ask: Callable[..., Any], home: Home, saved: Callable[..., str]
) -> None:
    client = await asyncio.to_thread(Client.connect, home)
    pages = [look() for _ in range(5)]
    await until(lambda: all(page.of("board") and page.of("board")[-1]["is_up"] for page in pages))
    backend = psutil.Process((await asyncio.to_thread(client.health)).pid)
    path = str(home.runtime().socket)
    await until(lambda: sum(each.laddr == path and each.status != "LISTEN" for each in _unix(backend)) <= 2)
    first = saved("Net")
    await asyncio.to_thread(client.submit, first)
    for page in pages:
        await until(lambda page=page: any(view["run_id"] == first for view in page.of("model")))

    os.kill(backend.pid, signal.SIGKILL)
    await until(lambda: all(page.of("away") for page in pages))
    second = saved("Net")
    await asyncio.to_thread(client.submit, second)
    for page in pages:
        await until(lambda page=page: any(view["run_id"] == second for view in page.of("board")[-1]["runs"])
                    or any(view["run_id"] == second for view in page.of("run")))  # fmt: skip


def _unix(process: psutil.Process) -> list[Any]:
    return process.net_connections(kind="unix")


async def test_the_backend_is_read_through_the_server(
    ask: Callable[..., Any], home: Home, saved: Callable[..., str]
) -> None:
    client = await asyncio.to_thread(Client.connect, home)
    run_id = saved("Net")
    await asyncio.to_thread(client.submit, run_id)
    answer = await ask("api/v1/runs?limit=5&1764000000000")
    assert answer.code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert [view["run_id"] for view in json.loads(answer.body)] == [run_id]
    history = json.loads((await ask(f"api/v1/runs/{run_id}/history")).body)
    assert (history["view"]["run_id"], history["curve"]) == (run_id, {})
    events = (await ask(f"api/v1/runs/{run_id}/events")).body.decode()
    assert events.count("event: end") == 1
    assert (await ask("api/v1/versions?ref=Net%40latest")).code == 200
    missing = await ask("api/v1/runs/nonsense")
    assert missing.code == 404
    assert "No run named 'nonsense'" in json.loads(missing.body)["error"]["message"]
    assert (await ask("api/v1/stop", "POST", fields={"what": "backend"})).code == 405
    assert (await ask("api/v1/health")).code == 200


async def test_a_page_that_goes_leaves_nothing_behind(look: Any, lepton: Any, ask: Callable[..., Any]) -> None:
    page = Page()
    task = asyncio.ensure_future(ask("api/v1/events", streaming_callback=page.take, request_timeout=1))
    await until(lambda: page.events)
    with pytest.raises(HTTPClientError):  # the page's own time is over
        await task
    await until(lambda: not lepton.live._listeners)
