"""Canaries that the backend promotes or rolls back by their figures, and shadows."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lepton_jupyter.backend.beside import Beside, ended
from lepton_jupyter.backend.store import EndpointRow, ReleaseRow
from lepton_jupyter.client.client import Client
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import is_held
from lepton_jupyter.formats.views import DeployRequest, EndpointView

pytestmark = pytest.mark.slow

Wait = Callable[..., Any]
Saved = Callable[..., str]
ALIKE, OPPOSITE, BROKEN = "Net@2", "Net@3", "Net@4"  # beside Net@1


@pytest.fixture
def client(home: Home, saved: Saved, eventually: Wait) -> Client:
    """A client, four versions of a model, and endpoint ``e`` that serves the first."""
    client = Client.connect(home)
    for slope in (2.0, 2.001, -2.0, math.nan):
        run_id = saved(slope=slope)
        client.submit(run_id)
        eventually(lambda run_id=run_id: client.version(run_id).number, timeout_s=60)
    deploy(client, "Net@1")
    return client


def deploy(client: Client, model: str, **more: Any) -> EndpointView:
    return client.deploy(DeployRequest(**{"name": "e", "model": model, "force": "not judged here", **more}))


def ask(view: EndpointView, key: str, a: float = 1.0) -> str:
    """Return which version answers one row."""
    token = Path(view.token_path).read_text().strip()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "X-Lepton-Key": key}
    body = json.dumps([{"a": a, "b": 0.0}]).encode()
    request = urllib.request.Request(f"{view.url}/predict", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(json.loads(answer.read())["version"])


def ask_often(view: EndpointView, n: int, first: int = 0) -> Counter[str]:
    """Ask for n rows of n keys, whose values are spread evenly."""
    return Counter(ask(view, f"user-{number}", (number * 0.618) % 1) for number in range(first, first + n))


def actions(client: Client) -> list[tuple[str, str]]:
    return [(release.action, release.version) for release in client.endpoint("e").history]


def test_a_canary_that_does_well_takes_the_live_versions_place(client: Client, eventually: Wait) -> None:
    view = deploy(client, ALIKE, canary=0.4, canary_requests=40, canary_seconds=0.5, who="ann")
    assert (view.state, view.version) == ("ready", "Net@1")
    assert view.beside is not None
    assert (view.beside.kind, view.beside.version, view.beside.share) == ("canary", ALIKE, 0.4)
    assert deploy(client, ALIKE, canary=0.4, canary_requests=40, canary_seconds=0.5).beside == view.beside  # as it is
    assert len(client.endpoint("e").history) == 2
    with pytest.raises(LeptonError, match=r"Net@2 is the canary of endpoint 'e'"):
        client.delete("model/Net@2")
    answered = ask_often(view, 160)
    assert set(answered) == {"Net@1", ALIKE}
    eventually(lambda: client.endpoint("e").version == ALIKE and client.endpoint("e").state == "ready", timeout_s=20)
    promoted = client.endpoint("e")
    assert promoted.beside is None
    last = promoted.history[-1]
    assert (last.action, last.version, last.who) == ("canary promoted", ALIKE, "ann")
    assert " requests in " in last.why and "failed 0 of " in last.why
    assert set(ask_often(promoted, 20)) == {ALIKE}
    with pytest.raises(LeptonError, match="serves Net@2 already"):
        deploy(client, ALIKE, canary=0.4)
    back = client.rollback("e")  # to what was live before
    assert (back.version, back.is_held) == ("Net@1", True)


def test_a_canary_that_fails_is_rolled_back_though_the_backend_was_killed(
    home: Home, client: Client, eventually: Wait
) -> None:
    view = deploy(client, BROKEN, canary=0.4)
    os.kill(client.health().pid, signal.SIGKILL)
    pid = int(json.loads(home.endpoint("e").status.read_bytes())["pid"])
    ask_often(view, 60)  # the endpoint answers and counts
    eventually(lambda: home.endpoint("e").figures.exists())
    again = Client.connect(home)
    eventually(lambda: again.endpoint("e").beside is None and again.endpoint("e").state == "ready", timeout_s=20)
    found = again.endpoint("e")
    assert found.version == "Net@1"
    assert actions(again) == [("deploy", "Net@1"), ("canary", BROKEN), ("canary rolled back", BROKEN)]
    assert "It fails oftener" in found.history[-1].why and "Net@4 was rolled back: It fails oftener" in found.warning
    assert set(ask_often(found, 20)) == {"Net@1"}
    assert int(json.loads(home.endpoint("e").status.read_bytes())["pid"]) == pid
    with pytest.raises(LeptonError, match="no earlier version"):
        again.rollback("e")


def test_a_canary_that_predicts_something_else_is_rolled_back(client: Client, eventually: Wait) -> None:
    view = deploy(client, OPPOSITE, canary=0.4)
    n = 0
    while client.endpoint("e").beside is not None and n < 3000:
        ask_often(view, 200, first=n)
        n += 200
    eventually(lambda: client.endpoint("e").beside is None and client.endpoint("e").state == "ready", timeout_s=20)
    assert actions(client)[-1] == ("canary rolled back", OPPOSITE)
    assert "predicts something else" in client.endpoint("e").history[-1].why


def test_rollback_ends_a_canary_or_a_shadow_and_deploy_replaces_it(client: Client, eventually: Wait) -> None:
    deploy(client, ALIKE, canary=0.1)
    ended_view = client.rollback("e")
    assert (ended_view.version, ended_view.beside, ended_view.is_held) == ("Net@1", None, False)
    deploy(client, ALIKE, canary=0.1)
    other = deploy(client, OPPOSITE, is_shadow=True)
    assert other.beside is not None and (other.beside.kind, other.beside.version) == ("shadow", OPPOSITE)
    ask_often(other, 20)
    eventually(lambda: (b := client.endpoint("e").beside) and "the same in" in b.verdict)
    assert deploy(client, "Net@1").beside is None, "the live version alone"
    deploy(client, ALIKE, canary=0.1)
    swapped = deploy(client, OPPOSITE)
    assert (swapped.version, swapped.beside) == (OPPOSITE, None)
    assert actions(client) == [
        ("deploy", "Net@1"),
        ("canary", ALIKE), ("canary ended", ALIKE),
        ("canary", ALIKE), ("canary ended", ALIKE), ("shadow", OPPOSITE), ("shadow ended", OPPOSITE),
        ("deploy", "Net@1"),
        ("canary", ALIKE), ("canary ended", ALIKE), ("deploy", OPPOSITE),
    ]  # fmt: skip
    assert client.rollback("e").version == "Net@1"


def test_a_canary_ends_when_the_alias_that_the_endpoint_follows_moves(client: Client) -> None:
    client.promote("Net@1", "champion")
    deploy(client, "Net@champion")
    deploy(client, OPPOSITE, canary=0.1)
    client.promote(ALIKE, "champion")
    view = client.endpoint("e")
    assert (view.version, view.beside, view.follows) == (ALIKE, None, "champion")
    assert actions(client)[-2:] == [("canary ended", OPPOSITE), ("promote", ALIKE)]


def test_what_cannot_stand_beside_the_live_version_changes_nothing(home: Home, client: Client, saved: Saved) -> None:
    before = client.endpoint("e")
    for more, said in (
        ({"canary": 0.1, "is_shadow": True}, "not both"),
        ({"canary_requests": 5}, "mean nothing without --canary"),
        ({"canary": 0.1, "name": "new"}, "Endpoint 'new' serves nothing: a canary stands beside a live version"),
        ({"canary": 0.1, "model": "Net@1"}, "serves Net@1 already"),
        ({"canary": 1.5}, "does not understand"),
        ({"canary": 0.0}, "does not understand"),
        ({"is_shadow": True, "port": before.port - 1}, f"keeps its port {before.port}"),
    ):
        with pytest.raises(LeptonError, match=said):
            deploy(client, **{"model": ALIKE, **more})
    assert client.endpoint("e") == before
    client.stop_endpoint("e")
    with pytest.raises(LeptonError, match="serves nothing"):
        deploy(client, ALIKE, canary=0.1)


def test_a_canary_that_the_endpoint_does_not_take_is_taken_back(home: Home, client: Client) -> None:
    graph = Path(client.version(ALIKE).bundle) / "graph.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(LeptonError, match="was changed"):
        deploy(client, ALIKE, canary=0.1)
    view = client.endpoint("e")
    assert (view.version, view.state, view.beside) == ("Net@1", "ready", None)
    assert "was changed" in view.warning
    assert actions(client) == [("deploy", "Net@1"), ("canary", ALIKE), ("canary rolled back", ALIKE)]


def test_a_change_that_a_kill_cut_short_is_carried_out_by_the_next_backend(
    home: Home, client: Client, eventually: Wait
) -> None:
    view = deploy(client, OPPOSITE, canary=0.9)
    client.stop_backend()
    eventually(lambda: not is_held(home.runtime().backend_lock))
    database = sqlite3.connect(home.state_db, timeout=20)
    database.execute("update endpoints set release = release + 1, beside = null")  # as between intent and deed
    database.commit()
    database.close()
    again = Client.connect(home)
    eventually(lambda: again.endpoint("e").state == "ready")
    assert again.endpoint("e").beside is None
    assert set(ask_often(view, 20)) == {"Net@1"}


def test_only_what_a_release_leaves_behind_is_ended() -> None:
    beside = Beside(kind="canary", run_id="b", since=2, started_at=0.0, share=0.1)
    row = EndpointRow(name="e", created_at=0.0, is_wanted=True, model="Net", run_id="a", port=1, release=2)
    with_it = msgspec.structs.replace(row, beside=msgspec.json.encode(beside).decode())

    def line(action: str) -> list[str]:
        release = ReleaseRow(endpoint="e", at=1.0, action=action, run_id="c")
        return [f"{each.action} {each.run_id}" for each in ended(with_it, row, release)]

    assert line("deploy") == line("promote") == ["canary ended b"]
    assert line("canary promoted") == line("canary rolled back") == line("canary ended") == []
    release = ReleaseRow(endpoint="e", at=1.0, action="deploy", run_id="c")
    assert ended(None, row, release) == ended(row, row, release) == ended(with_it, with_it, release) == []
