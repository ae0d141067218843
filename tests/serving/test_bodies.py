"""Bodies are bounded in size, in time and all of them together, and a connection that says nothing is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest

from lepton_jupyter.serving import bodies, listener
from lepton_jupyter.serving.answers import HttpError
from lepton_jupyter.serving.bodies import Bodies, GoneError
from lepton_jupyter.serving.listener import Listener

LIMIT = 100


def parts(*sizes: int, is_whole: bool = True) -> Callable[[], Any]:
    """Return what gives a body part by part, and then either its end or nothing any more."""
    left = list(sizes)

    async def receive() -> MutableMapping[str, Any]:
        if not left:
            await asyncio.Event().wait()
        size = left.pop(0)
        return {"type": "http.request", "body": b"x" * size, "more_body": bool(left) or not is_whole}

    return receive


def test_a_body_counts_until_it_is_released() -> None:
    async def main() -> None:
        held = Bodies()
        body = await held.read(parts(30, 20), {}, LIMIT)
        assert (len(body), held.n_bytes) == (50, 50)
        held.release(body)
        assert held.n_bytes == 0

    asyncio.run(main())


@pytest.mark.parametrize("sizes", [(LIMIT + 1,), (60, 60), (LIMIT, 1)])
def test_a_body_beyond_its_limit_is_413_and_forgotten(sizes: tuple[int, ...]) -> None:
    async def main() -> None:
        held = Bodies()
        with pytest.raises(HttpError) as caught:
            await held.read(parts(*sizes), {}, LIMIT)
        assert (caught.value.status, held.n_bytes) == (413, 0)

    asyncio.run(main())


def test_all_bodies_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_BYTES_IN_FLIGHT", 150)

    async def main() -> None:
        held = Bodies()
        first = await held.read(parts(90), {}, LIMIT)
        with pytest.raises(HttpError) as caught:
            await held.read(parts(40, 40), {}, LIMIT)
        assert (caught.value.status, caught.value.headers) == (503, [(b"retry-after", b"1")])
        held.release(first)
        assert len(await held.read(parts(40, 40), {}, LIMIT)) == 80

    asyncio.run(main())


def test_a_body_that_never_ends_is_408_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(bodies, "LOOK_S", 0.01)

    async def main() -> None:
        held = Bodies()
        with pytest.raises(HttpError) as caught:
            await held.read(parts(10, is_whole=False), {}, LIMIT)
        assert (caught.value.status, held.n_bytes) == (408, 0)
        assert await held.read(parts(10), {}, LIMIT) == b"x" * 10

    asyncio.run(main())


def test_a_client_that_leaves_is_no_refusal() -> None:
    async def leave() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    async def main() -> None:
        with pytest.raises(GoneError):
            await Bodies().read(leave, {}, LIMIT)

    asyncio.run(main())


@pytest.mark.parametrize("said", [b"", b"POST /predict HTTP/1.1\r\nHost: e\r\nX-Slow: "])
def test_a_connection_without_a_whole_head_is_closed(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "KEEP_ALIVE_S", 1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError(scope)

    async def main() -> None:
        one = Listener("127.0.0.1", 0)
        await one.start(app)  # type: ignore[arg-type]
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(said)
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
        await one.stop()

    asyncio.run(main())
