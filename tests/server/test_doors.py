"""Endpoints under the Jupyter server's address."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.endpoint import Options
from lepton_jupyter.formats.views import DeployRequest, EndpointView
from tests.serving.certificates import write_certificate

pytestmark = pytest.mark.slow

ROW = {"a": 1.0, "b": 2.0}


@pytest.fixture
def deploy(home: Home, saved: Callable[..., str]) -> Callable[..., Any]:
    """Deploy a small model; to be awaited."""

    def work(name: str) -> EndpointView:
        client = Client.connect(home)
        run_id = saved("Net")
        client.submit(run_id)
        return client.deploy(DeployRequest(name=name, model=run_id, force="a test"))

    return lambda name="door": asyncio.to_thread(work, name)


async def test_an_endpoint_answers_under_the_base_url(ask: Callable[..., Any], deploy: Callable[..., Any]) -> None:
    await deploy()
    about = json.loads((await ask("endpoints/door")).body)
    assert about["endpoint"] == "door"
    answer = await ask(
        "endpoints/door/predict",
        "POST",
        body=json.dumps({"rows": [ROW]}),
        headers={"Content-Type": "application/json", "X-Request-ID": "mine"},
    )
    assert answer.code == 200, answer.body
    assert len(json.loads(answer.body)["predictions"]) == 1
    assert answer.headers["X-Request-ID"] == "mine"
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Security-Policy"] == "sandbox"
    assert (await ask("endpoints/door/healthz")).code == 200
    assert b"lepton_" in (await ask("endpoints/door/metrics")).body
    wrong = await ask("endpoints/door/nonsense?_xsrf=jupyters-own")
    assert (wrong.code, b"Nothing is at" in wrong.body, b"jupyters-own" in wrong.body) == (404, True, False)
    assert (await ask("endpoints/door/predict", "PUT", body="{}")).code == 405


async def test_an_endpoint_answers_while_the_backend_is_away(
    ask: Callable[..., Any], deploy: Callable[..., Any], home: Home
) -> None:
    await deploy()
    await asyncio.to_thread(Client(home).stop_backend)
    assert (await ask("endpoints/door/healthz")).code == 200
    assert not home.runtime().socket.exists()


async def test_an_endpoint_with_tls_answers_under_the_base_url_also_when_its_certificate_was_renewed(
    ask: Callable[..., Any], deploy: Callable[..., Any], home: Home, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    await deploy()
    cert, key = write_certificate(tmp_path / "tls", names=("model.example.org",))
    options = Options(tls_cert=str(cert), tls_key=str(key))
    request = DeployRequest(name="door", model="Net@1", force="a test", options=options)
    view = await asyncio.to_thread(Client(home).deploy, request)
    assert view.url.startswith("https://")
    assert json.loads((await ask("endpoints/door")).body)["endpoint"] == "door"
    write_certificate(tmp_path / "tls", names=("model.example.org",))
    shown = home.endpoint("door").certificate
    await asyncio.to_thread(eventually, lambda: shown.read_text() == cert.read_text())
    kind = {"Content-Type": "application/json"}
    answer = await ask("endpoints/door/predict", "POST", body=json.dumps({"rows": [ROW]}), headers=kind)
    assert answer.code == 200, answer.body
    write_certificate(tmp_path / "stranger")
    shown.write_text((tmp_path / "stranger" / "cert.pem").read_text())  # another certificate than it shows
    assert (await ask("endpoints/door/healthz")).code == 502


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(
    ask: Callable[..., Any], deploy: Callable[..., Any], home: Home
) -> None:
    await deploy()
    config = home.endpoint("door").config
    config.write_text(config.read_text().replace('"port"', '"max_body_bytes":1000,"port"'))
    answer = await ask("endpoints/door/predict", "POST", body=b"x" * 2000)
    assert (answer.code, json.loads(answer.body)["error"]["message"]) == (413, "The body is larger than 1000 bytes.")

    async def in_parts(write: Callable[[bytes], Any]) -> None:
        for _ in range(20):
            await write(b"x" * 100)

    with suppress(HTTPClientError):  # closed while it was still sending
        assert (await ask("endpoints/door/predict", "POST", body_producer=in_parts)).code in (400, 413)
    assert (await ask("endpoints/door/healthz")).code == 200


async def test_an_endpoint_that_is_not_there_or_not_running_gets_no_request(
    ask: Callable[..., Any], deploy: Callable[..., Any], home: Home
) -> None:
    view = await deploy()
    unknown = await ask("endpoints/dor/predict", "POST")
    assert unknown.code == 404
    assert "Did you mean 'door'?" in json.loads(unknown.body)["error"]["message"]
    assert (await ask("endpoints/..%2Fdoor/predict", "POST")).code == 400
    await asyncio.to_thread(Client(home).stop_endpoint, "door")
    with socket.create_server(("127.0.0.1", view.port)) as stranger:  # who has its port now gets no token
        stranger.setblocking(False)
        answer = await ask("endpoints/door/healthz")
        assert answer.code == 503
        assert "is not running" in json.loads(answer.body)["error"]["message"]
        with pytest.raises(BlockingIOError):
            stranger.accept()


async def heard_by(
    ask: Callable[..., Any], home: Home, monkeypatch: pytest.MonkeyPatch, **request: Any
) -> tuple[bytes, Any]:
    """Ask an endpoint in whose place we listen; return what reached it, and the answer."""
    heard: list[bytes] = []
    whole = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heard.append(head)
        if b"chunked" in head:
            heard.append(await reader.readexactly(len(b"5\r\nfirst\r\n")))
            whole.set()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: a=b\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for word in (b"one ", b"two"):
            writer.write(b"%x\r\n%s\r\n" % (len(word), word))
            await writer.drain()
            await asyncio.sleep(0.05)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    folder = home.endpoint("ear")
    folder.root.mkdir()
    folder.token.write_text("secret-of-the-endpoint")
    folder.config.write_text(
        json.dumps({"name": "ear", "release": 1, "model": "N", "version": "N@1", "bundle": "", "manifest_hash": "",
                    "port": port, "token_hashes": []})
    )  # fmt: skip
    monkeypatch.setattr("lepton_jupyter.faces.server.doors.is_any_held", lambda _: True)
    if "body_producer" in request:
        request["body_producer"] = request["body_producer"](whole)
    answer = await ask("endpoints/ear/deep/path?x=1&_xsrf=jupyters" + request.pop("more", ""), **request)
    server.close()
    return b"".join(heard), answer


async def test_what_is_jupyters_own_does_not_reach_the_endpoint(
    ask: Callable[..., Any],
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    jp_base_url: str,
    jp_auth_header: dict[str, str],
) -> None:
    headers = {"Cookie": "a=secret-cookie", "X-Mine": "yes", "Connection": "keep-alive, X-Hop", "X-Hop": "no",
               "X-Forwarded-Prefix": "/lies", "Referer": "http://127.0.0.1/secret-page"}  # fmt: skip
    token = jp_auth_header["Authorization"].removeprefix("token ")
    heard, answer = await heard_by(ask, home, monkeypatch, headers=headers, token=None, more=f"&token={token}")
    lines = heard.decode().splitlines()
    assert lines[0] == "GET /deep/path?x=1 HTTP/1.1"
    said = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines[1:] if line}
    assert said["authorization"] == "Bearer secret-of-the-endpoint"
    assert said["x-mine"] == "yes"
    assert said["x-forwarded-prefix"] == f"{jp_base_url}lepton-jupyter/endpoints/ear"
    assert not {"cookie", "x-hop", "referer"} & set(said)
    assert answer.body == b"one two"
    assert "a=b" not in answer.headers.get_list("Set-Cookie")


async def test_bodies_are_streamed_both_ways(
    ask: Callable[..., Any], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[bytes] = []

    def producer(whole: asyncio.Event) -> Any:
        async def produce(write: Callable[[bytes], Any]) -> None:
            await write(b"first")
            await asyncio.wait_for(whole.wait(), 30)  # the endpoint has heard it before there is more
            await write(b"second")

        return produce

    _, answer = await heard_by(
        ask, home, monkeypatch, method="POST", body_producer=producer, streaming_callback=parts.append
    )
    assert answer.code == 200
    assert parts == [b"one ", b"two"]
