"""Tokens and TLS of endpoints as the backend keeps them: files, hashes, history; taken without a restart."""

from __future__ import annotations

import json
import os
import signal
import stat
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.backend.endpoints import Endpoints
from lepton_jupyter.backend.store import Store
from lepton_jupyter.client.client import Client
from lepton_jupyter.client.trust import certificate_of
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.endpoint import Options
from lepton_jupyter.formats.views import EndpointView, TokenRequest, TokenView
from lepton_jupyter.serving.tls import trusting
from tests.backend.test_endpoints import ask, deploy, pid_of
from tests.backend.test_endpoints import two as two  # a fixture
from tests.serving.certificates import write_certificate

pytestmark = pytest.mark.slow

Two = tuple[Client, list[str]]
Wait = Callable[..., Any]


def status_of(view: EndpointView, word: str, path: str = "/predict") -> int:
    """Ask with a token; return the status."""
    body = json.dumps({"rows": [{"a": 1.0, "b": 2.0}]}).encode() if path == "/predict" else None
    headers = {"Authorization": f"Bearer {word}", "Content-Type": "application/json"}
    request = urllib.request.Request(view.url + path, data=body, headers=headers)
    trusted = certificate_of(view.url, Path(view.certificate_path))
    context = trusting(trusted) if trusted else None
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def word_of(view: TokenView) -> str:
    return Path(view.path).read_text()


def test_tokens_are_made_replaced_and_revoked_in_files_of_their_own(home: Home, two: Two) -> None:
    client, _ = two
    view = deploy(client, "Net@champion")
    pid = pid_of(home)
    shop = client.make_token("e", TokenRequest(name="shop", who="me"))
    graphs = client.make_token("e", TokenRequest(name="graphs", scopes=("read",), who="me"))
    assert shop.scopes == ("infer",) and stat.S_IMODE(Path(shop.path).stat().st_mode) == 0o600
    assert [status_of(view, word_of(shop), path) for path in ("/predict", "/metrics", "/v2")] == [200, 403, 200]
    assert [status_of(view, word_of(graphs), path) for path in ("/predict", "/metrics", "/v2")] == [403, 200, 200]
    assert client.make_token("e", TokenRequest(name="shop", scopes=("infer",))) == shop  # once more: nothing new
    assert [each.name for each in client.tokens("e")] == ["owner", "graphs", "shop"]

    before = word_of(shop)
    client.make_token("e", TokenRequest(name="shop", is_replacing=True, who="you"))
    after = word_of(shop)
    assert [status_of(view, word) for word in (before, after)] == [401, 200]
    client.make_token("e", TokenRequest(name="shop", is_replacing=True, grace_s=60))
    assert [status_of(view, word) for word in (before, after, word_of(shop))] == [401, 200, 200]
    assert [(each.name, each.ends_at is None) for each in client.tokens("e")][:2] == [("owner", True), ("shop", True)]
    left = client.revoke_token("e", "shop", who="me")
    assert [each.name for each in left] == ["owner", "graphs"] and not Path(shop.path).exists()
    assert status_of(view, after) == 401

    lines = [(line.action, line.who, line.why) for line in client.endpoint("e").history]
    assert lines[1:] == [
        ("token made", "me", "shop: infer"),
        ("token made", "me", "graphs: read"),
        ("token replaced", "you", "shop: infer"),
        ("token replaced", "", "shop: infer; the old one is let in for 60 s"),
        ("token revoked", "me", "shop"),
    ]
    assert pid_of(home) == pid
    words = [before, after, word_of(graphs), Path(view.token_path).read_text()]
    files = [path for path in home.root.rglob("*") if path.is_file() and "mlflow" not in path.name]
    holders = {path for path in files for word in words if word.encode() in path.read_bytes()}
    assert holders == {Path(graphs.path), Path(view.token_path)}
    with pytest.raises(LeptonError, match="no earlier version"):
        client.rollback("e")  # tokens are no versions


def test_the_owner_is_let_in_by_a_new_token_after_it_was_replaced(home: Home, two: Two) -> None:
    client, _ = two
    view = deploy(client, "Net@champion")
    before = Path(view.token_path).read_text()
    owner = client.make_token("e", TokenRequest(name="owner", is_replacing=True, grace_s=60))
    assert owner.path == view.token_path and word_of(owner) != before
    assert [status_of(view, word, "/metrics") for word in (before, word_of(owner))] == [200, 200]
    client.make_token("e", TokenRequest(name="owner", is_replacing=True))
    assert status_of(view, before) == 401
    assert ask(client.endpoint("e"))


def test_what_cannot_be_said_of_a_token_is_refused(home: Home, two: Two) -> None:
    client, _ = two
    deploy(client, "Net@champion")
    client.make_token("e", TokenRequest(name="shop"))
    for name, more, said in (
        ("shop", {"scopes": ("read",)}, "has a token 'shop' already, with the scope infer"),
        ("shp", {"is_replacing": True}, "Did you mean 'shop'"),
        ("../x", {}, "cannot be the name of a token"),
        ("owner", {"scopes": ("infer",), "is_replacing": True}, "is for all"),
    ):
        with pytest.raises(LeptonError) as refused:
            client.make_token("e", TokenRequest(name=name, **more))
        assert said in str(refused.value)
    for name, said in (("owner", "cannot be revoked"), ("nobody", "No token named 'nobody'")):
        with pytest.raises(LeptonError, match=said):
            client.revoke_token("e", name, who="")
    with pytest.raises(LeptonError, match="No endpoint named 'f'"):
        client.tokens("f")


def test_tokens_outlive_swaps_kills_and_stops(home: Home, two: Two, eventually: Wait) -> None:
    client, _ = two
    view = deploy(client, "Net@champion")
    shop = word_of(client.make_token("e", TokenRequest(name="shop")))
    client.promote("Net@2", "champion")
    assert status_of(view, shop) == 200
    os.kill(pid_of(home), signal.SIGKILL)
    os.kill(client.health().pid, signal.SIGKILL)
    eventually(lambda: client.endpoint("e").state == "ready")
    assert status_of(view, shop) == 200
    client.stop_endpoint("e")
    fresh = word_of(client.make_token("e", TokenRequest(name="shop", is_replacing=True)))
    view = deploy(client, "Net@2")
    assert [status_of(view, word) for word in (shop, fresh)] == [401, 200]
    client.delete("endpoint/e")
    view = deploy(client, "Net@2")
    assert [each.name for each in client.tokens("e")] == ["owner"] and status_of(view, fresh) == 401


def test_a_token_revoked_by_a_backend_that_died_of_it_ends_when_the_next_is_there(
    home: Home, two: Two, eventually: Wait
) -> None:
    client, _ = two
    view = deploy(client, "Net@champion")
    word = word_of(client.make_token("e", TokenRequest(name="shop")))
    said = home.endpoint("e").config.read_bytes()
    client.revoke_token("e", "shop", who="")
    client.stop_backend()
    home.endpoint("e").config.write_bytes(said)  # as if it had been killed before it could write this
    eventually(lambda: status_of(view, word) == 200)
    assert client.health()
    eventually(lambda: status_of(view, word) == 401)


def test_an_owner_who_was_replaced_by_a_backend_that_died_of_it_is_known_to_the_next(
    home: Home, two: Two, eventually: Wait
) -> None:
    client, _ = two
    view = deploy(client, "Net@champion")
    before = home.endpoint("e").token.read_text()
    said = home.endpoint("e").config.read_bytes()
    client.stop_backend()
    home.endpoint("e").token.write_text("the new one")  # as if it had been killed right behind this
    assert home.endpoint("e").config.read_bytes() == said and status_of(view, before) == 200
    assert client.health()
    eventually(lambda: (status_of(view, "the new one"), status_of(view, before)) == (200, 401))


def test_a_token_that_the_endpoint_did_not_take_is_made_anew(
    home: Home, two: Two, eventually: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = two
    view = deploy(client, "Net@champion")
    first = word_of(client.make_token("e", TokenRequest(name="shop")))
    client.stop_backend()
    monkeypatch.setattr("lepton_jupyter.backend.tokens.TAKEN_S", 0.2)
    ours = Endpoints(home, Store(home))
    os.kill(pid_of(home), signal.SIGSTOP)  # it takes nothing
    try:
        for asked in (TokenRequest(name="desk"), TokenRequest(name="shop", is_replacing=True)):
            with pytest.raises(LeptonError, match="has not taken its tokens"):
                ours.tokens.make(ours.row("e"), asked)
    finally:
        os.kill(pid_of(home), signal.SIGCONT)
    assert [each.name for each in ours.store.tokens("e") if each.ends_at is None] == ["shop"]
    assert not (home.endpoint("e").tokens / "desk").exists()
    assert client.health()
    desk = client.make_token("e", TokenRequest(name="desk"))
    assert status_of(view, word_of(desk)) == status_of(view, first) == 200


def test_an_endpoint_of_before_there_were_scopes_is_told_what_it_understands(home: Home, two: Two) -> None:
    client, _ = two
    deploy(client, "Net@champion")
    client.make_token("e", TokenRequest(name="shop"))
    config = json.loads(home.endpoint("e").config.read_bytes())
    assert len(config["token_hashes"]) == 1 and [each["name"] for each in config["tokens"]] == ["shop"]


# -- TLS


def test_tls_begins_and_ends_on_a_live_endpoint(home: Home, two: Two, tmp_path: Path) -> None:
    client, _ = two
    plain = deploy(client, "Net@champion")
    cert, key = write_certificate(tmp_path / "tls", days=3)
    said = Options(tls_cert=str(cert), tls_key=str(key))
    view = deploy(client, "Net@champion", options=said)
    assert (view.url, view.port) == (plain.url.replace("http:", "https:"), plain.port)
    word = Path(view.token_path).read_text()
    assert status_of(view, word) == 200
    assert view.certificate is not None and "Its certificate ends" in view.remarks[0]
    client.promote("Net@2", "champion")  # what was said stays
    assert client.endpoint("e").url == view.url and status_of(view, word) == 200
    _, other = write_certificate(tmp_path / "other")
    with pytest.raises(LeptonError, match="does not belong"):
        deploy(client, "Net@2", options=Options(tls_cert=str(cert), tls_key=str(other)))
    back = client.endpoint("e")
    assert (back.state, back.url) == ("ready", view.url) and status_of(back, word) == 200
    again = deploy(client, "Net@2", options=Options(tls_cert="", tls_key=""))
    assert again.url == plain.url and status_of(again, word) == 200 and again.certificate is None
    with pytest.raises(LeptonError, match="no address of this machine"):
        deploy(client, "Net@2", name="far", options=Options(host="192.0.2.1"))


def test_all_addresses_without_tls_are_a_warning(home: Home, two: Two) -> None:
    client, _ = two
    view = deploy(client, "Net@champion", options=Options(host="0.0.0.0"))
    assert view.url.startswith("http://127.0.0.1:") and "without TLS" in view.remarks[0]
    assert ask(view)
    assert deploy(client, "Net@champion", options=Options(host="127.0.0.1")).remarks == ()


def test_tokens_are_replaced_through_the_backend_without_a_failed_request(
    home: Home, two: Two, eventually: Wait
) -> None:
    client, _ = two
    view = deploy(client, "Net@champion")
    path = Path(client.make_token("e", TokenRequest(name="shop")).path)
    statuses: list[int] = []
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            statuses.append(status_of(view, path.read_text()))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        client.make_token("e", TokenRequest(name="shop", is_replacing=True, grace_s=5))
        so_far = len(statuses)
        eventually(lambda n=so_far: len(statuses) > n)
    is_over.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200} and len(statuses) > 20
