"""Endpoints in real processes: deployed, swapped, had back, rolled back, stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Identity, is_held
from lepton_jupyter.formats.views import DeployRequest, EndpointView

pytestmark = pytest.mark.slow

Wait = Callable[..., Any]
Saved = Callable[..., str]
Judge = Callable[..., str]


def deploy(client: Client, model: str, name: str = "e", **more: Any) -> EndpointView:
    return client.deploy(DeployRequest(name=name, model=model, **{"force": "not judged here", **more}))


def ask(view: EndpointView) -> Any:
    """Ask an endpoint for one row."""
    request = urllib.request.Request(
        f"{view.url}/predict",
        data=json.dumps({"rows": [{"a": 1.0, "b": 2.0}]}).encode(),
        headers={
            "Authorization": f"Bearer {Path(view.token_path).read_text().strip()}",
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def pid_of(home: Home, name: str = "e") -> int:
    return int(json.loads(home.endpoint(name).status.read_bytes())["pid"])


@pytest.fixture
def two(home: Home, saved: Saved) -> tuple[Client, list[str]]:
    """A client, and two versions that say the opposite; the first is champion."""
    client = Client.connect(home)
    ids = [saved(slope=2.0), saved(slope=-2.0)]
    for run_id in ids:
        client.submit(run_id)
    client.promote(ids[0], "champion")
    return client, ids


def test_an_endpoint_serves_follows_its_alias_and_rolls_back(home: Home, two: tuple[Client, list[str]]) -> None:
    client, _ = two
    view = deploy(client, "Net@champion", who="me")
    assert (view.state, view.version, view.follows) == ("ready", "Net@1", "champion")
    assert stat.S_IMODE(Path(view.token_path).stat().st_mode) == 0o600
    assert "yes" in json.dumps(ask(view))
    pid = pid_of(home)
    assert deploy(client, "Net@champion").version == "Net@1"  # once more: nothing new
    assert len(client.endpoint("e").history) == 1

    client.promote("Net@2", "champion")
    swapped = client.endpoint("e")
    assert (swapped.state, swapped.version, swapped.port) == ("ready", "Net@2", view.port)
    assert '"no"' in json.dumps(ask(swapped))
    back = client.rollback("e")
    assert (back.version, back.is_held, back.state) == ("Net@1", True, "ready")
    assert "yes" in json.dumps(ask(back))
    with pytest.raises(LeptonError, match="no earlier version"):
        client.rollback("e")
    client.promote("Net@1", "champion")
    assert client.endpoint("e").is_held is False
    assert [release.action for release in client.endpoint("e").history] == ["deploy", "promote", "rollback", "promote"]
    assert pid_of(home) == pid
    with pytest.raises(LeptonError, match="what endpoint 'e' serves"):
        client.delete("model/Net@1")


def test_a_killed_endpoint_is_ready_within_five_seconds_on_its_port(
    home: Home, two: tuple[Client, list[str]], eventually: Wait
) -> None:
    client, _ = two
    view = deploy(client, "Net")
    pid = pid_of(home)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: pid_of(home) != pid and client.endpoint("e").state == "ready", timeout_s=5)
    assert client.endpoint("e").port == view.port
    assert client.endpoint("e").n_restarts == 1
    assert ask(client.endpoint("e"))
    os.kill(client.health().pid, signal.SIGKILL)  # the next backend adopts it
    pid = pid_of(home)
    assert client.endpoint("e").state == "ready"
    assert pid_of(home) == pid


def test_endpoints_are_up_again_when_the_runtime_folder_was_swept(
    home: Home, two: tuple[Client, list[str]], eventually: Wait
) -> None:
    client, _ = two
    view = deploy(client, "Net")
    pid = pid_of(home)
    shutil.rmtree(home.runtime().root)
    eventually(lambda: client.endpoint("e").state == "ready" and pid_of(home) != pid, timeout_s=25)
    assert client.endpoint("e").port == view.port
    assert ask(view)


def test_a_stopped_endpoint_is_gone_and_keeps_its_port(home: Home, two: tuple[Client, list[str]]) -> None:
    client, _ = two
    view = deploy(client, "Net")
    who = Identity.of(pid_of(home))
    assert client.stop_endpoint("e").state == "stopped"
    assert who is not None and not who.is_alive()
    lock = home.runtime().endpoint_lock("e")
    assert not lock.exists() and not is_held(lock)
    time.sleep(1)
    assert client.endpoint("e").state == "stopped"
    assert deploy(client, "Net").port == view.port
    assert client.delete("endpoint/e") == "endpoint 'e'"
    assert client.endpoints() == []
    assert not home.endpoint("e").root.exists()


def test_what_cannot_be_deployed_changes_nothing(
    home: Home, two: tuple[Client, list[str]], saved: Saved, judge: Judge
) -> None:
    client, _ = two
    bad, unjudged, stuck = saved("Bad"), saved("New"), saved("Stuck", is_deployable=False, why_not="data-dependent if")
    for run_id in (bad, unjudged, stuck):
        client.submit(run_id)
    judge(client, bad, verdict="FAIL", auc=0.3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for model, more, said in (
            ("Net", {"port": port}, f"Port {port}"),
            ("Bad", {"force": None}, "FAIL"),
            ("New", {"force": None}, "never evaluated"),
            ("Stuck", {"force": "why not"}, "data-dependent if"),
            ("Nett", {}, "Did you mean 'Net'"),
        ):
            with pytest.raises(LeptonError, match=said):
                deploy(client, model, **more)
    assert client.endpoints() == []
    assert list(home.endpoints.iterdir()) == []
    forced = deploy(client, "Bad", force="a demonstration")
    assert forced.history[0].why == "forced: a demonstration"


def test_a_version_that_the_endpoint_does_not_take_is_taken_back(home: Home, two: tuple[Client, list[str]]) -> None:
    client, ids = two
    deploy(client, "Net@1")
    graph = home.bundles / ids[1] / "graph.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(LeptonError, match="was changed"):
        deploy(client, "Net@2")
    view = client.endpoint("e")
    assert (view.version, view.state) == ("Net@1", "ready")
    assert "was changed" in view.warning
    assert "yes" in json.dumps(ask(view))
    with pytest.raises(LeptonError, match="was changed"):
        deploy(client, "Net@2", name="other")
    assert [each.name for each in client.endpoints()] == ["e"]


def test_a_kept_port_that_is_taken_is_an_error_that_names_it_until_it_is_free(
    home: Home, two: tuple[Client, list[str]], eventually: Wait
) -> None:
    client, _ = two
    view = deploy(client, "Net")
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        who = Identity.of(pid_of(home))
        assert who is not None
        who.send(signal.SIGKILL)
        deadline = time.monotonic() + 5
        while True:
            try:
                thief.bind(("127.0.0.1", view.port))
                break
            except OSError:
                assert time.monotonic() < deadline
        thief.listen()
        refused = eventually(lambda: (seen := client.endpoint("e")).state == "error" and seen, timeout_s=10)
        assert str(view.port) in refused.error.message
    eventually(lambda: client.endpoint("e").state == "ready", timeout_s=20)
