"""HTTP on a connection, byte by byte: the short way answers as the long way does, and in order."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serving.fuzz import head, post
from tests.serving.graphs import ROW, Server

pytestmark = pytest.mark.slow

BODY = json.dumps({"rows": [ROW]}).encode()


class Wire:
    """A connection on which answers are read one behind the other."""

    def __init__(self, server: Server) -> None:
        status = server.status()
        assert status is not None
        self.socket = socket.create_connection(("127.0.0.1", status.port), timeout=20)
        self._file = self.socket.makefile("rb")

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def answer(self) -> tuple[int, Any, dict[str, str]]:
        status = int(self._file.readline().split()[1])
        lines = iter(lambda: self._file.readline().strip().decode(), "")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        content = self._file.read(int(headers.get("content-length", 0)))
        is_json = headers.get("content-type") == "application/json"
        return status, json.loads(content) if is_json else content, headers

    def is_closed(self) -> bool:
        return self._file.read(1) == b""


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    made = Wire(server)
    yield made
    made.socket.close()


def named(number: int, path: str = "/predict", body: bytes = BODY) -> bytes:
    return post(path, body, f"X-Request-Id: n{number}")


def test_one_connection_takes_one_request_after_the_other(wire: Wire) -> None:
    seen = []
    for number in range(5):
        wire.send(named(number))
        status, answer, headers = wire.answer()
        seen.append((status, answer["request_id"], headers["x-request-id"], len(answer["predictions"])))
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
    assert seen == [(200, f"n{number}", f"n{number}", 1) for number in range(5)]


@pytest.mark.parametrize("cut", [1, 20, 100, len(post("/predict", BODY)) - len(BODY), len(post("/predict", BODY)) - 1])
def test_a_request_in_two_pieces_is_one(wire: Wire, cut: int) -> None:
    whole = post("/predict", BODY)
    wire.send(whole[:cut])
    time.sleep(0.05)  # so that it arrives as two
    wire.send(whole[cut:])
    assert wire.answer()[0] == 200
    wire.send(whole)
    assert wire.answer()[0] == 200


def test_requests_sent_at_once_are_answered_in_their_order(wire: Wire) -> None:
    broken, other = b'{"rows": [', head("GET", "/v2", None, "X-Request-Id: n2")
    wire.send(named(0) + named(1, body=broken) + other + named(3, "/v2/models/Net/infer") + named(4) + named(5))
    found = [wire.answer() for _ in range(6)]
    assert [status for status, _, _ in found] == [200, 400, 200, 400, 200, 200]
    assert [headers["x-request-id"] for _, _, headers in found] == [f"n{number}" for number in range(6)]


def test_a_second_request_may_come_while_the_first_is_not_whole(wire: Wire) -> None:
    wire.send(named(0) + named(1)[:50])
    assert wire.answer()[2]["x-request-id"] == "n0"
    wire.send(named(1)[50:])
    assert wire.answer()[2]["x-request-id"] == "n1"


def test_a_client_may_ask_to_be_let_go(wire: Wire) -> None:
    wire.send(post("/predict", BODY, "Connection: close"))
    assert wire.answer()[0] == 200
    assert wire.is_closed()


def test_the_oldest_http_is_answered_and_closed(wire: Wire) -> None:
    wire.send(post("/predict", BODY).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert wire.answer()[0] == 200
    assert wire.is_closed()


def test_who_waits_for_continue_is_told_to(wire: Wire) -> None:
    wire.send(head("POST", "/predict", len(BODY), "Expect: 100-continue"))
    assert wire.socket.recv(100).startswith(b"HTTP/1.1 100 ")
    wire.send(BODY)
    assert wire.answer()[0] == 200


def test_chunks_are_one_body(wire: Wire) -> None:
    wire.send(head("POST", "/predict", None, "Transfer-Encoding: chunked"))
    wire.send(b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (10, BODY[:10], len(BODY) - 10, BODY[10:]))
    assert wire.answer()[0] == 200


@pytest.mark.parametrize("headers", [["X: " + "a" * 70_000], [f"X-{place}: a" for place in range(300)]])
def test_a_head_that_is_too_large_is_431(wire: Wire, headers: list[str]) -> None:
    wire.send(head("POST", "/predict", 0, *headers))
    status, said, _ = wire.answer()
    assert status == 431 and b"headers are larger than" in said
    assert wire.is_closed()


def test_what_is_no_http_is_400(wire: Wire) -> None:
    wire.send(b"\x16\x03\x01 hello\r\n\r\n")
    assert wire.answer()[0] == 400
    assert wire.is_closed()


def test_the_token_is_asked_for_on_the_short_way_too(wire: Wire) -> None:
    for token, status in (("a-token-for-tests", 200), ("wrong", 401), ("a-token-for-tests", 200), ("", 401)):
        wire.send(head("POST", "/predict", len(BODY), token=token) + BODY)
        assert wire.answer()[0] == status


def test_whoever_leaves_at_once_harms_nobody(server: Server, eventually: Callable[..., Any]) -> None:
    def in_flight() -> float:
        text = server.ask("GET", "/metrics")[1]
        families = {family.name: family for family in text_string_to_metric_families(text)}
        return float(families["lepton_requests_in_flight"].samples[0].value)

    for _ in range(20):
        wire = Wire(server)
        wire.send(named(0) + named(1))
        wire.socket.close()
    eventually(lambda: in_flight() == 0, timeout_s=10)
    assert server.predict(ROW)["predictions"]
