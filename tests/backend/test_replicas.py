"""Endpoints of several processes: started, had back, let go, re-adopted, judged together."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.backend.store import EndpointRow
from lepton_jupyter.backend.watch import processes_of
from lepton_jupyter.client.client import Client
from lepton_jupyter.core.devices import n_cores
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Identity, is_held
from lepton_jupyter.core.replicas import own_folder, replica_lock
from lepton_jupyter.formats.endpoint import Options
from lepton_jupyter.formats.views import EndpointView
from lepton_jupyter.serving.sharing import can_share
from tests.backend.test_beside import actions, ask_often
from tests.backend.test_endpoints import ask, deploy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_share() or n_cores() < 2, reason="two processes want Linux and two cores"),
]

Wait = Callable[..., Any]
Saved = Callable[..., str]
TWO = Options(replicas=2)


@pytest.fixture
def client(home: Home, saved: Saved) -> Client:
    """A client, and three versions: the second says nearly what the first does, the third the opposite."""
    client = Client.connect(home)
    for slope in (2.0, 2.001, -2.0):
        client.submit(saved(slope=slope))
    return client


def pid_of(home: Home, number: int) -> int:
    """Return which process last said that it is this replica."""
    return int(json.loads(own_folder(home.endpoint("e"), number).status.read_bytes())["pid"])


def who(home: Home, number: int) -> Identity:
    """Return the living process that is one replica."""
    found = Identity.of(pid_of(home, number))
    assert found is not None
    return found


def lock(home: Home, number: int) -> Path:
    return replica_lock(home.runtime().endpoint_lock("e"), number)


@contextlib.contextmanager
def asked_all_the_time(view: EndpointView, n: int = 4) -> Iterator[list[str]]:
    """Ask over a new connection each time; yields what failed."""
    failures: list[str] = []
    is_over = threading.Event()

    def go_on() -> None:
        while not is_over.is_set():
            try:
                ask(view)
            except OSError as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=go_on) for _ in range(n)]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def test_replicas_come_and_go_without_a_failed_request(home: Home, client: Client, eventually: Wait) -> None:
    view = deploy(client, "Net@1")
    assert (view.replicas, view.n_ready) == (1, 1)
    assert not (home.endpoint("e").root / "replicas").exists()
    first = who(home, 1)
    with asked_all_the_time(view) as failures:
        view = deploy(client, "Net@1", options=TWO)
        assert (view.state, view.replicas, view.n_ready) == ("ready", 2, 2)
        second = who(home, 2)
        assert is_held(lock(home, 1)) and is_held(lock(home, 2))
        assert deploy(client, "Net@1").replicas == 2, "as before, where nothing is said"
        assert deploy(client, "Net@2").version == "Net@2"
        assert client.rollback("e").version == "Net@1"
        alone = deploy(client, "Net@1", options=Options(replicas=1))
        assert (alone.replicas, alone.n_ready, alone.state) == (1, 1, "ready")
        eventually(lambda: not second.is_alive() and not lock(home, 2).exists(), timeout_s=30)
    assert failures == []
    assert first.is_alive() and alone.port == view.port
    assert [release.action for release in alone.history] == ["deploy", "deploy", "deploy", "rollback", "deploy"]


def test_one_that_is_killed_is_back_while_the_other_serves(home: Home, client: Client, eventually: Wait) -> None:
    view = deploy(client, "Net@1", options=TWO)
    first, second = who(home, 1), who(home, 2)
    first.send(signal.SIGKILL)
    eventually(lambda: pid_of(home, 1) != first.pid, timeout_s=20)  # it has the lock: the other's sockets are closed
    assert client.endpoint("e").state == "ready"
    with asked_all_the_time(view) as failures:
        eventually(lambda: client.endpoint("e").n_ready == 2, timeout_s=20)
    assert failures == []
    assert second.is_alive()
    assert client.endpoint("e").n_restarts == 1


def test_the_next_backend_adopts_all_of_them_and_stop_ends_all(home: Home, client: Client, eventually: Wait) -> None:
    view = deploy(client, "Net@1", options=TWO)
    both = [who(home, 1), who(home, 2)]
    os.kill(client.health().pid, signal.SIGKILL)
    again = Client.connect(home)
    eventually(lambda: again.endpoint("e").n_ready == 2)
    assert [who(home, 1), who(home, 2)] == both
    both[1].send(signal.SIGKILL)
    eventually(lambda: again.endpoint("e").n_ready == 2 and pid_of(home, 2) != both[1].pid, timeout_s=20)
    second = who(home, 2)
    os.kill(again.health().pid, signal.SIGKILL)
    after = Client.connect(home)
    deploy(after, "Net@1", options=Options(replicas=1))  # it knows who is too many
    eventually(lambda: not second.is_alive(), timeout_s=30)
    deploy(after, "Net@1", options=TWO)
    both = [who(home, 1), who(home, 2)]
    stopped = after.stop_endpoint("e")
    assert (stopped.state, stopped.n_ready, stopped.replicas) == ("stopped", 0, 2)
    assert not any(each.is_alive() for each in both)
    assert not lock(home, 1).exists() and not lock(home, 2).exists()
    assert deploy(after, "Net@1").n_ready == 2
    assert after.endpoint("e").port == view.port
    after.delete("endpoint/e")
    assert not home.endpoint("e").root.exists()


def test_all_are_up_again_when_the_runtime_folder_was_swept(home: Home, client: Client, eventually: Wait) -> None:
    view = deploy(client, "Net@1", options=TWO)
    both = [who(home, 1), who(home, 2)]
    shutil.rmtree(home.runtime().root)
    eventually(lambda: not any(each.is_alive() for each in both), timeout_s=20)
    eventually(lambda: client.endpoint("e").n_ready == 2, timeout_s=25)
    assert ask(view)


def test_a_version_that_they_do_not_take_is_taken_back_in_all(home: Home, client: Client, eventually: Wait) -> None:
    view = deploy(client, "Net@1", options=TWO)
    graph = Path(client.version("Net@2").bundle) / "graph.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    with asked_all_the_time(view) as failures:
        with pytest.raises(LeptonError, match="was changed"):
            deploy(client, "Net@2")
        eventually(lambda: client.endpoint("e").state == "ready")
    assert failures == []
    back = client.endpoint("e")
    assert (back.version, back.n_ready) == ("Net@1", 2)


def test_more_than_there_are_cores_are_refused(client: Client) -> None:
    with pytest.raises(LeptonError, match=f"it has {n_cores()} cores") as caught:
        deploy(client, "Net@1", options=Options(replicas=n_cores() + 1))
    assert f"at most --replicas {n_cores()}" in caught.value.hint
    assert client.endpoints() == []


def test_a_canary_is_judged_by_what_all_of_them_counted(home: Home, client: Client, eventually: Wait) -> None:
    deploy(client, "Net@1", options=TWO)
    view = deploy(client, "Net@2", canary=0.4, canary_requests=40, canary_seconds=0.5)
    ask_often(view, 160)
    eventually(lambda: client.endpoint("e").version == "Net@2" and client.endpoint("e").state == "ready", timeout_s=20)
    promoted = client.endpoint("e")
    assert (promoted.n_ready, promoted.beside) == (2, None)
    view = deploy(client, "Net@3", canary=0.4)
    n = 0
    while client.endpoint("e").beside is not None and n < 4000:
        ask_often(view, 200, first=n)
        n += 200
    eventually(lambda: client.endpoint("e").state == "ready")
    assert actions(client)[-1] == ("canary rolled back", "Net@3")
    assert "predicts something else" in client.endpoint("e").history[-1].why


def test_what_was_recorded_of_one_process_is_read_as_before() -> None:
    row = EndpointRow(
        name="e", created_at=0.0, is_wanted=True, model="Net", run_id="a", port=1, release=1,
        process='{"pid": 5, "start_ticks": 7, "boot_id": "b"}',
    )  # fmt: skip
    assert processes_of(row) == {1: Identity(5, 7, "b")}
