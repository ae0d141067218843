"""The board: the whole home in one stream, live, and at no cost while nobody listens."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from lepton_jupyter.backend.board import Board, Listener
from lepton_jupyter.backend.board_routes import curve_of
from lepton_jupyter.client.client import Client
from lepton_jupyter.client.shutdown import shut_down
from lepton_jupyter.core.paths import Home, RunFolder
from lepton_jupyter.formats.events import EventWriter
from lepton_jupyter.formats.views import DeployRequest, RunView

Wait = Callable[..., Any]


class Stream(threading.Thread):
    """Somebody who listens to ``/v1/events``."""

    def __init__(self, home: Home) -> None:
        super().__init__(daemon=True)
        self.events: list[tuple[str, Any]] = []
        self.is_over = False
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(60)
        self.socket.connect(str(home.runtime().socket))
        connection = http.client.HTTPConnection("backend")
        connection.sock = self.socket
        connection.request("GET", "/v1/events")
        self.answer = connection.getresponse()
        assert self.answer.headers["Content-Type"].startswith("text/event-stream")
        self.start()

    def run(self) -> None:
        name = ""
        try:
            while line := self.answer.readline():
                key, _, value = line.rstrip(b"\n").partition(b": ")
                if key == b"event":
                    name = value.decode()
                elif key == b"data":
                    self.events.append((name, json.loads(value)))
        except (OSError, ValueError):
            pass
        self.is_over = True

    def of(self, kind: str) -> list[Any]:
        """Return what was said about one kind so far."""
        return [data for name, data in self.events if name == kind]

    def close(self) -> None:
        """Go away, as a browser does."""
        self.socket.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def listen(home: Home) -> Iterator[Callable[[], Stream]]:
    """Open streams that are closed afterwards."""
    opened: list[Stream] = []

    def connect() -> Stream:
        opened.append(Stream(home))
        return opened[-1]

    yield connect
    for stream in opened:
        if not stream.is_over:
            stream.close()


@pytest.mark.slow
def test_a_listener_gets_the_board_then_every_change(
    home: Home, saved: Callable[..., str], listen: Callable[[], Stream], eventually: Wait
) -> None:
    client = Client.connect(home)
    first = saved("Net")
    client.submit(first)
    stream = listen()
    board = eventually(lambda: stream.of("board"))[0]
    assert [view["run_id"] for view in board["runs"]] == [first]
    assert [view["model"] for view in board["models"]] == ["Net"]
    assert (board["endpoints"], set(board)) == ([], {"runs", "models", "endpoints", "schedules", "alerts"})

    second = saved("Net")
    client.submit(second)
    eventually(lambda: any(view["run_id"] == second and view["state"] == "completed" for view in stream.of("run")))
    eventually(lambda: any(view["run_id"] == second for view in stream.of("model")))
    client.deploy(DeployRequest(name="door", model=first, force="a test"))
    eventually(lambda: any(view["state"] == "ready" for view in stream.of("endpoint")))
    client.stop_endpoint("door")
    eventually(lambda: stream.of("endpoint")[-1]["state"] == "stopped")
    client.delete("endpoint/door")
    assert eventually(lambda: stream.of("gone"))[0] == {"kind": "endpoint", "id": "door"}


@pytest.mark.slow
def test_a_run_that_moves_is_told_at_most_twice_a_second_and_its_end_at_once(
    home: Home, prepare: Callable[..., RunFolder], listen: Callable[[], Stream], eventually: Wait
) -> None:
    client = Client.connect(home)
    stream = listen()
    busy = (
        "import json, os, time\n"
        "with open(os.environ['LEPTON_RUN'] + '/events.kernel.jsonl', 'a') as file:\n"
        "    for step in range(150):\n"
        "        event = {'at': time.time(), 'kind': 'metric', 'step': step, 'values': {'loss': 1 / (1 + step)}}\n"
        "        print(json.dumps(event), file=file, flush=True)\n"
        "        time.sleep(0.01)\n"
    )
    folder = prepare(busy)
    started = time.monotonic()
    client.submit(folder.run_id)
    eventually(lambda: any(view["state"] == "completed" for view in stream.of("run")), timeout_s=90)
    took_s = time.monotonic() - started
    told = [view for view in stream.of("run") if view["run_id"] == folder.run_id]
    n_states = len({view["state"] for view in told})
    assert len(told) <= 2 * took_s + n_states + 1
    assert told[-1]["metrics"] == client.run(folder.run_id).metrics
    history = client_history(home, folder.run_id)
    assert history["view"]["state"] == "completed"
    assert len(history["curve"]["loss"]) == 150
    assert history["curve"]["loss"][-1] == [149.0, 1 / 150]


def client_history(home: Home, run_id: str) -> dict[str, Any]:
    """Ask for a run's history as a card does."""
    connection = http.client.HTTPConnection("backend")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(str(home.runtime().socket))
    connection.request("GET", f"/v1/runs/{run_id}/history")
    found: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return found


@pytest.mark.slow
def test_a_stream_ends_when_the_backend_is_stopped(home: Home, listen: Callable[[], Stream], eventually: Wait) -> None:
    client = Client.connect(home)
    stream = listen()
    eventually(lambda: stream.of("board"))
    client.stop_backend()
    eventually(lambda: stream.is_over)


@pytest.mark.slow
def test_a_shutdown_leaves_no_process_while_somebody_listens(
    home: Home, listen: Callable[[], Stream], eventually: Wait
) -> None:
    Client.connect(home)
    stream = listen()
    eventually(lambda: stream.of("board"))
    shut_down(home)
    stream.join(30)
    assert stream.is_over
    deadline = time.monotonic() + 4  # a keeper that came back would be there by then
    while time.monotonic() < deadline:
        assert processes_of(home) == []
        time.sleep(0.2)


def processes_of(home: Home) -> list[str]:
    """Return the command lines of whatever lives for a home."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            argv = process.cmdline()
            if str(home.root) in argv:
                found.append(" ".join(argv))
    return found


class Views:
    """A home in memory."""

    def __init__(self, path: Path) -> None:
        self.runs: dict[str, RunView] = {}
        self.n_reads = 0
        sqlite3.connect(path).execute("PRAGMA journal_mode=WAL")
        self.board = Board(path, read=self.read, moving=self.moving, signature=lambda: None)

    def read(self) -> dict[str, Any]:
        """Count that somebody reads everything."""
        self.n_reads += 1
        return {"run": list(self.runs.values())}

    def moving(self, unfinished: Any) -> list[RunView]:
        """Return all runs."""
        return list(self.runs.values())

    def put(self, run_id: str, state: Any, **changes: Any) -> None:
        """Let a run be as said."""
        self.runs[run_id] = RunView(run_id=run_id, kind="train", title="t", state=state, created_at=0.0, **changes)


def test_nobody_is_looked_for_while_nobody_listens(tmp_path: Path) -> None:
    views = Views(tmp_path / "state.db")

    async def listen_and_go() -> None:
        listener = Listener(asyncio.get_running_loop())
        await asyncio.to_thread(views.board.listen, listener)
        assert b"event: board" in await listener.next(10)
        assert any(thread.name == "board" for thread in threading.enumerate())
        views.board.leave(listener)

    asyncio.run(listen_and_go())
    deadline = time.monotonic() + 10
    while any(thread.name == "board" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_slow_listener_is_told_the_newest_view_only(tmp_path: Path) -> None:
    views = Views(tmp_path / "state.db")

    async def be_slow() -> bytes:
        listener = Listener(asyncio.get_running_loop())
        await asyncio.to_thread(views.board.listen, listener)
        await listener.next(10)
        for done in range(20):
            views.put("r1", "running", progress={"done": done})
            await asyncio.sleep(0.1)
        told = b""
        while b'"done":19' not in told:
            told = await listener.next(10)
        views.board.leave(listener)
        return told

    told = asyncio.run(be_slow())
    assert told.count(b"event: run") == 1


def test_a_quiet_board_reads_nothing_but_now_and_then(tmp_path: Path) -> None:
    views = Views(tmp_path / "state.db")

    async def wait() -> None:
        listener = Listener(asyncio.get_running_loop())
        await asyncio.to_thread(views.board.listen, listener)
        await asyncio.sleep(4)
        n_reads = views.n_reads
        with sqlite3.connect(tmp_path / "state.db") as connection:
            connection.execute("CREATE TABLE news (id INTEGER)")
        deadline = time.monotonic() + 10
        while views.n_reads == n_reads:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        views.board.leave(listener)
        assert n_reads <= 2  # the whole board, and the first look

    asyncio.run(wait())


def test_a_curve_is_thinned_and_holds_finite_points_only(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    writer = EventWriter(folder.events)
    for step in range(5000):
        value = math.nan if step == 7 else float(step)
        writer.write("metric", step=step, values={"loss": value, "bad": "text"})
    writer.write("metric", values={"plain": 3.0})
    writer.close()
    curve = curve_of(folder)
    assert len(curve["loss"]) == 300
    assert (curve["loss"][0], curve["loss"][-1]) == ((0.0, 0.0), (4999.0, 4999.0))
    assert curve["plain"] == [(0.0, 3.0)]
    assert "bad" not in curve
    assert b"NaN" not in msgspec.json.encode(curve)
