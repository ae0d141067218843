"""An endpoint's life: releases swapped under load, its lock, its port, its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.core.processes import is_held, spawn
from lepton_jupyter.formats.bundle import GRAPH
from lepton_jupyter.formats.requestlog import read_segment, segments
from lepton_jupyter.serving.endpoint import EXIT_BROKEN
from tests.serving.graphs import ROW, SCHEMA_BINARY, TOKEN, Server, graph, make_bundle

pytestmark = pytest.mark.slow

NewServer = Callable[[], Server]


@pytest.fixture
def running(new_server: NewServer, tmp_path: Path) -> Server:
    """A ready endpoint of its own."""
    server = new_server()
    server.configure(make_bundle(tmp_path / "first"))
    server.start()
    server.wait()
    return server


def test_a_release_is_swapped_under_load_without_a_lost_request(running: Server, tmp_path: Path) -> None:
    second = make_bundle(tmp_path / "second", shift=1.0)
    first = running.predict(ROW)["predictions"][0]["probability_yes"]
    answers: list[tuple[str, float]] = []
    failures: list[Any] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            try:
                status, answer = running.ask("POST", "/predict", ROW)
                assert status == 200, answer
                answers.append((answer["version"], answer["predictions"][0]["probability_yes"]))
            except (AssertionError, OSError) as error:
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for release in range(2, 8):
        bundle = second if release % 2 == 0 else make_bundle(tmp_path / f"again-{release}")
        running.configure(bundle, release=release, version=f"Net@{release}")
        running.wait(release=release)
    is_over.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {f"Net@{number}" for number in (1, 2, 7)} <= {version for version, _ in answers}
    for version, probability in answers:  # never the rows of one version with the name of another
        assert (probability == first) == (int(version.partition("@")[2]) % 2 == 1)
    assert running.stop() == 0
    logged = [record for path in segments(running.folder.requests) for _, record in read_segment(path)]
    assert len(logged) == len(answers) + 1


def test_a_release_that_cannot_be_loaded_is_named_and_the_old_one_serves_on(
    running: Server, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    changed = make_bundle(tmp_path / "changed")
    (changed.root / GRAPH).write_bytes(graph(SCHEMA_BINARY, shift=1.0))
    rubbish = make_bundle(tmp_path / "rubbish", content=b"no graph")
    other = make_bundle(tmp_path / "other", shift=2.0)
    bad: list[tuple[Any, dict[str, Any], str]] = [
        (changed, {}, "is not what its manifest says"),
        (rubbish, {}, "cannot be loaded"),
        (other, {"manifest_hash": "0" * 64}, "not the one that was registered"),
        (other, {"bundle": str(tmp_path / "nowhere")}, "holds no whole bundle"),
    ]
    for release, (bundle, changes, said) in enumerate(bad, start=2):
        running.configure(bundle, release=release, version=f"Net@{release}", **changes)
        status = eventually(lambda n=release: (s := running.status()) and s.error_release == n and s, timeout_s=10)
        assert said in status.error
        assert (status.state, status.release, status.version) == ("ready", 1, "Net@1")
        assert running.predict(ROW)["version"] == "Net@1"
    running.folder.config.write_bytes(b'{"name": ')
    time.sleep(0.3)  # three looks: a file that is no configuration changes nothing
    assert running.predict(ROW)["version"] == "Net@1"
    running.configure(other, release=9, version="Net@9")
    status = running.wait(release=9)
    assert (status.error, status.error_release) == ("", None)
    assert running.predict(ROW)["version"] == "Net@9"


def test_a_first_release_that_cannot_be_loaded_waits_for_the_next(
    new_server: NewServer, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    server = new_server()
    bundle = make_bundle(tmp_path / "b")
    server.configure(bundle, manifest_hash="0" * 64)
    server.start()
    status = server.wait(state="error")
    assert status.error_release == 1
    assert server.ask("GET", "/healthz")[0] == 200 and server.ask("GET", "/readyz")[0] == 503
    code, answer, headers = server.ask_fully("POST", "/predict", ROW)
    assert code == 503 and "not the one that was registered" in answer["error"]["message"]
    assert headers["retry-after"] == "1"
    server.configure(bundle, release=2)
    server.wait(release=2)
    assert server.predict(ROW)


def test_tokens_and_limits_change_without_a_new_load(running: Server, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "same")
    running.configure(bundle, release=2)
    running.wait(release=2)
    running.configure(bundle, release=3, max_rows=2, max_body_bytes=1000, token_hashes=())
    running.wait(release=3)
    assert running.ask("POST", "/predict", ROW)[0] == 401
    running.configure(bundle, release=4, max_rows=2, max_body_bytes=1000)
    running.wait(release=4)
    assert running.ask("POST", "/predict", [ROW] * 2)[0] == 200
    status, answer = running.ask("POST", "/predict", [ROW] * 3)
    assert status == 413 and "3 rows; at most 2" in answer["error"]["message"]
    assert running.ask("POST", "/predict", b" " * 1001)[0] == 413


def test_a_new_port_is_taken_and_the_old_one_given_back(
    running: Server, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    before = running.wait().port
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    bundle = make_bundle(tmp_path / "same")
    running.configure(bundle, release=2, port=port)
    assert running.wait(release=2).port == port
    assert running.predict(ROW)
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", before)):
        pass
    running.configure(bundle, release=3, port=0)
    assert running.wait(release=3).port == port, "any free one: the one it has"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = taken.getsockname()[1]
        running.configure(bundle, release=4, port=busy)
        status = eventually(lambda: (s := running.status()) and s.error_release == 4 and s, timeout_s=10)
    assert status.error == f"port {busy} is in use"
    assert running.predict(ROW)


def test_a_port_in_use_is_an_error_and_exit_code_3(new_server: NewServer, tmp_path: Path) -> None:
    server = new_server()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server.configure(make_bundle(tmp_path / "b"), port=port)
        server.start()
        assert server.process is not None and server.process.wait(timeout=20) == 3
    status = server.status()
    assert status is not None
    assert (status.state, status.error, status.port) == ("error", f"port {port} is in use", port)
    assert not is_held(server.lock)


BROKEN = """
import asyncio, sys
from pathlib import Path
from lepton_jupyter.serving.__main__ import main
from lepton_jupyter.serving.endpoint import Endpoint
async def work(self):
    while not (self.folder.root / "break").exists():
        await asyncio.sleep(0.02)
    raise RuntimeError("a bug of ours")
Endpoint._keep_doors = work
sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def test_an_endpoint_that_can_only_go_on_by_half_ends(new_server: NewServer, tmp_path: Path) -> None:
    server = new_server()
    server.configure(make_bundle(tmp_path / "b"))
    argv = [sys.executable, "-c", BROKEN, str(server.folder.root), str(server.lock)]
    server.process = spawn(argv, env=os.environ, cwd=server.folder.root, log=server.folder.log)
    server.wait()
    assert server.predict(ROW)
    (server.folder.root / "break").touch()
    assert server.process.wait(timeout=20) == EXIT_BROKEN
    said = server.folder.log.read_text()
    assert "the endpoint cannot go on" in said and "RuntimeError: a bug of ours" in said
    assert not is_held(server.lock)


def test_its_port_can_be_had_again_at_once(running: Server, tmp_path: Path) -> None:
    port = running.wait().port
    running.configure(make_bundle(tmp_path / "same"), port=port)
    running.predict(ROW)
    assert running.process is not None
    running.process.send_signal(signal.SIGKILL)
    running.process.wait()
    assert not is_held(running.lock)
    running.folder.status.unlink()
    running.start()
    assert running.wait().port == port
    assert running.predict(ROW)


def test_a_second_process_leaves_quietly(running: Server) -> None:
    assert is_held(running.lock)
    first = running.process
    log = running.folder.log.read_text()
    running.start()
    assert running.process is not None and running.process.wait(timeout=20) == 0
    assert running.folder.log.read_text() == log
    running.process = first
    assert running.predict(ROW)


def test_it_ends_when_its_lock_is_swept(running: Server) -> None:
    running.lock.unlink()
    assert running.process is not None and running.process.wait(timeout=10) == 0


def test_it_ends_when_its_folder_is_gone(running: Server) -> None:
    running.folder.root.rename(running.folder.root.with_name("moved"))
    assert running.process is not None and running.process.wait(timeout=10) == 0


def test_without_a_configuration_it_says_so(new_server: NewServer) -> None:
    server = new_server()
    server.start()
    assert server.process is not None and server.process.wait(timeout=20) == 2
    assert "endpoint.json cannot be read" in server.folder.log.read_text()


def test_a_request_under_way_is_answered_after_sigterm(running: Server) -> None:
    body = b"[" + b" " * 100_000 + b"]"
    connection = HTTPConnection("127.0.0.1", running.wait().port)
    connection.putrequest("POST", "/predict")
    connection.putheader("Authorization", f"Bearer {TOKEN}")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:50_000])
    time.sleep(0.2)  # the first half has arrived
    assert running.process is not None
    running.process.terminate()
    time.sleep(0.4)
    connection.send(body[50_000:])
    assert connection.getresponse().status == 200
    connection.close()
    assert running.process.wait(timeout=10) == 0


def test_an_idle_connection_does_not_hold_up_the_end(running: Server) -> None:
    connection = HTTPConnection("127.0.0.1", running.wait().port)
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    began = time.monotonic()
    assert running.stop() == 0
    assert time.monotonic() - began < 5
    connection.close()


def test_the_process_maps_neither_frameworks_nor_tables(running: Server) -> None:
    running.predict(ROW)
    assert running.process is not None
    mapped = Path(f"/proc/{running.process.pid}/maps").read_text()
    assert "onnxruntime" in mapped
    assert not [name for name in ("/torch/", "/mlflow", "/polars", "/pyarrow/", "/pandas/") if name in mapped]
    assert Path(f"/proc/{running.process.pid}/cwd").readlink() == running.folder.empty


def test_it_listens_on_loopback_only(running: Server) -> None:
    port = running.wait().port
    said = subprocess.run(["cat", "/proc/net/tcp"], capture_output=True, text=True, check=True).stdout
    listening = [line.split()[1] for line in said.splitlines() if line.split()[3] == "0A"]
    assert [address for address in listening if address.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]
