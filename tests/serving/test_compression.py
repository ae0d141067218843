"""Compressed bodies and answers, over HTTP."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from tests.serving.graphs import ROW, TOKEN, Server

pytestmark = pytest.mark.slow

BODY = json.dumps([ROW]).encode()
LIMIT = 64 * 2**20


@pytest.mark.parametrize(
    ("coding", "body"),
    [("gzip", gzip.compress(BODY)), ("deflate", zlib.compress(BODY))],
    ids=["gzip", "deflate"],  # gzip's bytes hold the time
)
def test_a_compressed_body_is_answered_as_any_other(server: Server, coding: str, body: bytes) -> None:
    status, answer = server.ask("POST", "/predict", body, headers={"Content-Encoding": coding})
    assert status == 200, answer
    assert answer["predictions"] == server.predict([ROW])["predictions"]


@pytest.mark.parametrize(
    ("coding", "body", "status", "said"),
    [
        ("gzip", BODY, 400, "The body is not gzip"),
        ("gzip", gzip.compress(BODY)[:-9], 400, "it is cut off"),
        ("gzip", gzip.compress(BODY) * 2, 400, "more follows its end"),
        ("gzip", gzip.compress(b" " * (LIMIT + 1)), 413, "larger than"),
        ("deflate", b"", 400, "it is cut off"),
        ("br", BODY, 415, "Known: gzip, deflate"),
    ],
    ids=["plain", "cut off", "twice", "bomb", "empty", "unknown"],
)
def test_what_cannot_be_unfolded_is_refused(server: Server, coding: str, body: bytes, status: int, said: str) -> None:
    found, answer = server.ask("POST", "/predict", body, headers={"Content-Encoding": coding})
    assert found == status, answer
    assert said in f"{answer['error']['message']} {answer['error']['hint']}"
    assert server.predict(ROW)


def test_a_large_answer_is_compressed_for_whoever_takes_it(server: Server) -> None:
    import httpx

    status = server.status()
    assert status is not None
    asked: dict[str, Any] = {"json": [ROW] * 2000, "headers": {"Authorization": f"Bearer {TOKEN}"}}
    url = f"http://127.0.0.1:{status.port}/predict"
    for coding in ("gzip", "deflate"):
        answer = httpx.post(url, json=asked["json"], headers=asked["headers"] | {"Accept-Encoding": coding})
        assert answer.headers["content-encoding"] == coding
        assert len(answer.json()["predictions"]) == 2000
    for accepted in ("identity", "gzip;q=0", "br"):
        answer = httpx.post(url, json=asked["json"], headers=asked["headers"] | {"Accept-Encoding": accepted})
        assert "content-encoding" not in answer.headers
    small = httpx.post(url, json=[ROW], headers=asked["headers"] | {"Accept-Encoding": "gzip"})
    assert "content-encoding" not in small.headers
