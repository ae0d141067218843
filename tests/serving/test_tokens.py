"""Who is let in, and for what: scopes of every route, tokens that change while they are used, draining."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.formats.endpoint import Token, fingerprint
from lepton_jupyter.serving.answers import HttpError
from lepton_jupyter.serving.routes import OPEN, ROUTES
from lepton_jupyter.serving.tokens import FIGURES, N_KNOWN, ROWS, SCOPES, Gate, needed
from tests.serving.graphs import ROW, TOKEN, Server, make_bundle

Wait = Callable[..., Any]


def token(name: str, *scopes: Any, word: str = "", **more: Any) -> Token:
    return Token(name=name, sha256=hashlib.sha256((word or f"{name}-word").encode()).hexdigest(), scopes=scopes, **more)


def status_of(gate: Gate, said: bytes | None, scopes: Any = ROWS) -> int:
    try:
        gate.check(said, scopes)
    except HttpError as error:
        return error.status
    return 200


# -- the gate


def test_every_route_says_which_scope_it_wants() -> None:
    assert set(ROUTES) - set(OPEN) == set(SCOPES)
    assert not set(OPEN) & set(SCOPES)
    assert needed("/v2/models/a%2Fb/infer") == ROWS
    assert needed("/v2/models/Net/versions/3/stats") == FIGURES


def test_a_token_is_let_in_for_its_scopes_and_named_where_it_lacks_one() -> None:
    gate = Gate(Path("/home/token"), [token("shop", "infer"), token("graphs", "read"), token("boss", "admin")])
    for _ in range(2):  # the second time from memory
        assert status_of(gate, b"Bearer shop-word") == 200
        assert status_of(gate, b"Bearer graphs-word") == 403
        assert status_of(gate, b"Bearer graphs-word", FIGURES) == 200
        assert status_of(gate, b"bearer boss-word", FIGURES) == 200
        assert status_of(gate, b"Bearer nobody-word") == 401
        assert status_of(gate, b"shop-word") == 401
    with pytest.raises(HttpError) as refused:
        gate.check(b"Bearer shop-word", FIGURES)
    assert "'shop' has the scope infer; this wants read" in str(refused.value)
    assert "shop-word" not in str(refused.value) + str(refused.value.error)
    assert (b"www-authenticate", b'Bearer error="insufficient_scope", scope="read"') in refused.value.headers


def test_more_clients_than_are_remembered_are_let_in_too() -> None:
    names = [f"client{number}" for number in range(3 * N_KNOWN)]
    gate = Gate(Path("/home/token"), [token(name, "infer") for name in names])
    for name in names * 2:
        assert status_of(gate, f"Bearer {name}-word".encode()) == 200
    gate.let_in([token(names[0], "infer")])
    assert [status_of(gate, f"Bearer {name}-word".encode()) for name in (names[0], names[-1])] == [200, 401]


def test_a_token_that_ends_is_let_in_until_then_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("lepton_jupyter.serving.tokens.time.time", lambda: now)
    gate = Gate(Path("/home/token"), [token("old", "infer", ends_at=1010.0), token("new", "infer")])
    assert status_of(gate, b"Bearer old-word") == 200
    now = 1010.0
    assert status_of(gate, b"Bearer old-word") == 401
    assert status_of(gate, b"Bearer new-word") == 200


# -- a real endpoint


@pytest.fixture
def running(new_server: Callable[[], Server], tmp_path: Path) -> Server:
    """An endpoint with an older token for all, and one for each scope."""
    server = new_server()
    server.configure(make_bundle(tmp_path / "b"), tokens=TOKENS)
    server.start()
    server.wait()
    return server


TOKENS = (token("shop", "infer"), token("graphs", "read"), token("boss", "admin"))
ASKED = [("POST", "/predict", ROW), ("POST", "/invocations", {"dataframe_records": [ROW]})]
ABOUT = ["/", "/openapi.json", "/version", "/v2", "/v2/health/ready", "/v2/models/diagnosis", "/v2/models/Net/ready"]


@pytest.mark.slow
def test_each_route_lets_in_who_has_its_scope(running: Server) -> None:
    def statuses(method: str, path: str, body: Any = None) -> list[int]:
        words = ("shop-word", "graphs-word", "boss-word", TOKEN, "nobody", None)
        return [running.ask(method, path, body, token=word)[0] for word in words]

    for method, path, body in ASKED:
        assert statuses(method, path, body) == [200, 403, 200, 200, 401, 401], path
    infer = {"inputs": []}
    assert statuses("POST", "/v2/models/diagnosis/infer", infer) == [422, 403, 422, 422, 401, 401]
    for path in ABOUT:
        assert statuses("GET", path) == [200, 200, 200, 200, 401, 401], path
    assert statuses("POST", "/v2/repository/index", {}) == [200, 200, 200, 200, 401, 401]
    for path in ("/metrics", "/v2/models/stats", "/v2/models/diagnosis/stats"):
        assert statuses("GET", path) == [403, 200, 200, 200, 401, 401], path
    for path in ("/admin/drain", "/admin/resume"):
        assert statuses("POST", path, {}) == [403, 403, 200, 200, 401, 401], path
    assert statuses("GET", "/readyz") == [200] * 6
    assert statuses("GET", "/nothing") == [404] * 4 + [401] * 2

    status, answer, headers = running.ask_fully("GET", "/metrics", token="shop-word")
    assert (status, answer["error"]["code"]) == (403, "refused")
    assert "read" in answer["error"]["message"] and "--scope read" in answer["error"]["hint"]
    assert headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="read"'
    assert "infer" in running.ask("POST", "/v2/models/diagnosis/infer", infer, token="graphs-word")[1]["error"]
    described = running.ask("GET", "/openapi.json", token="shop-word")[1]["paths"]
    assert "403" in described["/predict"]["post"]["responses"]
    said = running.folder.log.read_text() + running.folder.status.read_text()
    assert not [word for word in ("shop-word", "graphs-word", "boss-word", TOKEN) if word in said]


@pytest.mark.slow
def test_tokens_are_replaced_under_load_without_a_failed_request(
    running: Server, tmp_path: Path, eventually: Wait
) -> None:
    """Each client goes on with the new token as soon as it lies in its file, as a client's secret store does."""
    bundle, words, failures = make_bundle(tmp_path / "b2"), {"shop": "shop-word"}, []
    answered: list[str] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            word = words["shop"]
            status, answer = running.ask("POST", "/predict", ROW, token=word)
            answered.append(word)
            if status != 200:
                failures.append((status, answer))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(6):
        fresh, until = token("shop", "infer", word=f"word-{turn}"), time.time() + 60
        old = token("shop", "infer", word=words["shop"], ends_at=until)
        config = running.configure(bundle, tokens=(*TOKENS[1:], old, fresh))
        wanted = fingerprint(config.let_in())
        eventually(lambda w=wanted: (s := running.status()) and s.tokens == w, timeout_s=10)
        words["shop"] = f"word-{turn}"
        eventually(lambda t=turn: answered[-1] == f"word-{t}", timeout_s=10)
    is_over.set()
    for thread in threads:
        thread.join()
    assert failures == [] and len(set(answered)) == 7
    assert running.ask("POST", "/predict", ROW, token="shop-word")[0] == 401  # of two replacements ago
    assert running.ask("POST", "/predict", ROW, token="word-4")[0] == 200
    running.configure(bundle, tokens=())
    eventually(lambda: running.ask("POST", "/predict", ROW, token="word-5")[0] == 401, timeout_s=10)
    assert running.predict(ROW)["version"] == "Net@1"


@pytest.mark.slow
def test_a_token_ends_at_once_though_the_release_beside_it_cannot_be_taken(
    running: Server, tmp_path: Path, eventually: Wait
) -> None:
    bundle = make_bundle(tmp_path / "b3")
    running.configure(bundle, release=2, manifest_hash="0" * 64, tokens=TOKENS[:1])
    eventually(lambda: running.ask("GET", "/metrics", token="graphs-word")[0] == 401, timeout_s=10)
    assert running.ask("POST", "/predict", ROW, token="shop-word")[0] == 200
    assert eventually(lambda: (s := running.status()) and s.error_release == 2 and s, timeout_s=10).release == 1


@pytest.mark.slow
def test_a_drained_endpoint_says_so_and_answers_until_it_is_resumed(running: Server, eventually: Wait) -> None:
    def ready() -> list[int]:
        paths = ("/readyz", "/ping", "/v2/health/ready", "/v2/models/diagnosis/ready")
        return [running.ask("GET", path)[0] for path in paths]

    status, answer = running.ask("POST", "/admin/drain", {}, token="boss-word")
    assert (status, answer) == (200, {"drained": True, "in_flight": 0})
    assert ready() == [503] * 4 and running.ask("GET", "/healthz")[0] == 200
    assert running.predict(ROW)["version"] == "Net@1"
    eventually(lambda: (s := running.status()) and s.is_drained, timeout_s=10)
    running.stop()
    running.folder.status.unlink()
    running.start()  # killed and had back: whoever took it away has not said otherwise
    running.wait()
    assert ready() == [503] * 4
    assert running.ask("POST", "/admin/resume", {})[1]["drained"] is False
    assert ready() == [200] * 4
    eventually(lambda: (s := running.status()) and not s.is_drained, timeout_s=10)
