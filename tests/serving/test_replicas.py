"""Several processes on one port: who answers, who leaves, what they count together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lepton_jupyter.core.processes import is_held, spawn
from lepton_jupyter.core.replicas import make_folders, own_folder, replica_lock
from lepton_jupyter.formats.bundle import Bundle
from lepton_jupyter.formats.endpoint import Beside, EndpointStatus, Options
from lepton_jupyter.formats.figures import Figures, together
from lepton_jupyter.formats.requestlog import read_segment, segments
from lepton_jupyter.serving.sharing import can_share
from tests.serving.graphs import ROW, TOKEN, Server, make_bundle

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not can_share(), reason="only Linux shares a port so")]

Wait = Callable[..., Any]
HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}


class Several(Server):
    """An endpoint of several processes, started and looked at one by one."""

    def __init__(self, root: Path, bundle: Bundle) -> None:
        super().__init__(root)
        self.bundle = bundle
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def want(self, replicas: int, *, release: int = 1, bundle: Bundle | None = None, **changes: Any) -> None:
        """Write ``endpoint.json`` for so many."""
        make_folders(self.folder, replicas)
        more = {"port": self.port, "options": Options(replicas=replicas)} | changes
        self.configure(bundle or self.bundle, release=release, **more)

    def begin(self, number: int) -> None:
        """Start one process without waiting for it."""
        lock = replica_lock(self.lock, number)
        argv = [sys.executable, "-m", "lepton_jupyter.serving", str(self.folder.root), str(lock), str(number)]
        self.processes[number] = spawn(argv, env=os.environ, cwd=self.folder.root, log=self.folder.log)

    def said(self, number: int) -> EndpointStatus | None:
        """Return what one says of itself, where it lives."""
        try:
            status = msgspec.json.decode(own_folder(self.folder, number).status.read_bytes(), type=EndpointStatus)
        except FileNotFoundError:
            return None
        return status if status.pid == self.processes[number].pid else None

    def serves(self, number: int, release: int = 1) -> bool:
        """Whether one serves a release."""
        said = self.said(number)
        return said is not None and (said.state, said.release) == ("ready", release)

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Return what is counted, by name and labels."""
        status, text = self.ask("GET", "/metrics")
        assert status == 200
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def end(self) -> None:
        """End all of them."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(timeout=20)


class Load:
    """Clients that ask without a pause: some over a new connection each time, some over one that stays."""

    def __init__(self, port: int, *, n_new: int = 4, n_kept: int = 2) -> None:
        self.port = port
        self.n_answered = 0
        self.versions: Counter[str] = Counter()
        self.failures: list[str] = []
        self.slowest_s = 0.0
        self._is_over = threading.Event()
        kinds = [False] * n_new + [True] * n_kept
        self._threads = [threading.Thread(target=self._ask, args=(is_kept,)) for is_kept in kinds]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, is_kept: bool) -> None:
        body = json.dumps(ROW).encode()
        connection: HTTPConnection | None = None
        while not self._is_over.is_set():
            connection = connection or HTTPConnection("127.0.0.1", self.port, timeout=30)
            began = time.monotonic()
            try:
                connection.request("POST", "/predict", body, HEADERS)
                answer = connection.getresponse()
                said = json.loads(answer.read())
                assert answer.status == 200, said
                self.versions[said["version"]] += 1
                self.n_answered += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            except (OSError, HTTPException, AssertionError) as error:
                self.failures.append(repr(error))
                connection.close()
                connection = None
                continue
            if not is_kept:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()


@pytest.fixture
def several(tmp_path: Path) -> Iterator[Several]:
    """An endpoint without a process yet."""
    made = Several(tmp_path, make_bundle(tmp_path / "bundle"))
    yield made
    made.end()


@pytest.fixture
def two(several: Several, eventually: Wait) -> Several:
    """An endpoint of two processes that serve."""
    several.want(2)
    for number in (1, 2):
        several.begin(number)
    eventually(lambda: several.serves(1) and several.serves(2), timeout_s=30)
    return several


def test_a_process_joins_and_leaves_under_load_without_a_failed_request(several: Several, eventually: Wait) -> None:
    several.want(1)
    several.begin(1)
    eventually(lambda: several.serves(1), timeout_s=30)
    with Load(several.port, n_new=8) as load:
        for release in (2, 4, 6, 8):
            several.want(2, release=release)
            several.begin(2)
            eventually(lambda n=release: several.serves(1, n) and several.serves(2, n), timeout_s=30)
            before = load.n_answered
            eventually(lambda n=before: load.n_answered > n + 400, timeout_s=30)
            several.want(1, release=release + 1)
            assert several.processes[2].wait(timeout=30) == 0
            assert not is_held(replica_lock(several.lock, 2))
        before = load.n_answered
        eventually(lambda: load.n_answered > before + 300, timeout_s=30)
    assert load.failures == []
    log = several.folder.log.read_text()
    assert "[replica 2] leaving: 1 are enough" in log and "[replica 1] release 2" in log
    several.end()
    logged = [record for path in segments(several.folder.requests) for _, record in read_segment(path)]
    assert len(logged) == load.n_answered
    with socket.socket() as stranger:  # alone again, it shares its port with nobody
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        several.want(1, release=10)
        several.begin(1)
        eventually(lambda: several.serves(1, 10), timeout_s=30)
        with pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", several.port))


def test_a_new_port_is_taken_by_both(two: Several, eventually: Wait) -> None:
    before = two.port
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        two.port = free.getsockname()[1]
    two.want(2, release=2)
    eventually(lambda: two.serves(1, 2) and two.serves(2, 2), timeout_s=30)
    with Load(two.port, n_new=2, n_kept=0) as load:
        eventually(lambda: load.n_answered > 100, timeout_s=30)
    assert load.failures == []
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", before)):
        pass


def test_a_port_that_is_a_strangers_is_shared_with_nobody(several: Several, eventually: Wait) -> None:
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # such as another endpoint of several
        stranger.bind(("127.0.0.1", several.port))
        stranger.listen()
        several.want(2)
        for number in (1, 2):
            several.begin(number)
        assert [several.processes[number].wait(timeout=30) for number in (1, 2)] == [3, 3]
    for number in (1, 2):
        said = several.said(number)
        assert said is not None and (said.state, said.error) == ("error", f"port {several.port} is in use")
    for number in (1, 2):
        several.begin(number)
    eventually(lambda: several.serves(1) and several.serves(2), timeout_s=30)


def test_one_that_is_not_wanted_leaves_at_once(several: Several) -> None:
    several.want(1)
    make_folders(several.folder, 2)
    several.begin(2)
    assert several.processes[2].wait(timeout=30) == 0
    assert several.said(2) is None


def test_one_that_is_killed_loses_what_it_was_asked_and_no_more(two: Several, eventually: Wait) -> None:
    segment_of = {path: path.stat().st_ino for path in segments(two.folder.requests)}
    with Load(two.port, n_new=4, n_kept=4) as load:
        eventually(lambda: load.n_answered > 300, timeout_s=30)
        two.processes[2].send_signal(signal.SIGKILL)
        two.processes[2].wait()
        before = load.n_answered
        eventually(lambda: load.n_answered > before + 300, timeout_s=30)
        n_failures = len(load.failures)
        two.begin(2)
        eventually(lambda: two.serves(2), timeout_s=30)
        before = load.n_answered
        eventually(lambda: load.n_answered > before + 300, timeout_s=30)
    assert len(load.failures) == n_failures <= 16, "what was under way, and what came while its sockets were closed"
    assert all("Connection" in failure or "RemoteDisconnected" in failure for failure in load.failures)
    assert all(path.stat().st_ino == inode for path, inode in segment_of.items())


def test_one_that_is_told_to_end_leaves_its_new_clients_to_the_other(two: Several, eventually: Wait) -> None:
    with Load(two.port, n_new=6, n_kept=0) as load:
        for _ in range(3):
            before = load.n_answered
            eventually(lambda n=before: load.n_answered > n + 200, timeout_s=30)
            two.processes[2].terminate()
            assert two.processes[2].wait(timeout=30) == 0
            two.begin(2)
            eventually(lambda: two.serves(2), timeout_s=30)
    assert load.failures == []


def test_a_release_is_swapped_in_both_and_tried_once(two: Several, tmp_path: Path, eventually: Wait) -> None:
    other = make_bundle(tmp_path / "other", shift=1.0)
    with Load(two.port) as load:
        eventually(lambda: load.n_answered > 200, timeout_s=30)
        two.want(2, release=2, bundle=other, version="Net@2")
        eventually(lambda: two.serves(1, 2) and two.serves(2, 2), timeout_s=30)
        before = load.versions["Net@2"]
        eventually(lambda: load.versions["Net@2"] > before + 200, timeout_s=30)
    assert load.failures == []
    assert set(load.versions) == {"Net@1", "Net@2"}
    assert two.folder.tried.read_text().count(other.manifest_hash) == 1


def test_what_one_refuses_the_other_refuses_too(two: Several, tmp_path: Path, eventually: Wait) -> None:
    rubbish = make_bundle(tmp_path / "rubbish", content=b"no graph")
    two.want(2, release=2, bundle=rubbish, version="Net@2")
    for number in (1, 2):
        said = eventually(lambda n=number: (s := two.said(n)) and s.error_release == 2 and s, timeout_s=30)
        assert (said.state, said.release) == ("ready", 1)
        assert "cannot be loaded" in said.error
    assert two.predict(ROW)["version"] == "Net@1"


def test_metrics_are_about_both_and_no_counter_falls_when_one_is_killed(two: Several, eventually: Wait) -> None:
    key = ("lepton_requests_total", (("code", "200"), ("route", "/predict")))
    for _ in range(60):
        two.predict(ROW)
    eventually(lambda: two.metrics().get(key) == 60, timeout_s=10)
    found = two.metrics()
    assert found["lepton_endpoint_replicas", ()] == 2
    assert [found["lepton_replica_up", (("replica", number),)] for number in ("1", "2")] == [1, 1]
    assert found["lepton_rows_total", (("version", "Net@1"),)] == 60
    assert found["lepton_request_seconds_count", (("route", "/predict"),)] == 60
    assert {labels for name, labels in found if name == "process_resident_memory_bytes"} == {
        (("replica", "1"),), (("replica", "2"),)
    }  # fmt: skip
    (stats,) = two.ask("GET", "/v2/models/stats")[1]["model_stats"]
    assert (stats["inference_count"], stats["inference_stats"]["success"]["count"]) == (60, 60)

    two.processes[2].send_signal(signal.SIGKILL)
    two.processes[2].wait()
    seen = [60.0]
    for _ in range(20):
        two.predict(ROW)
        seen.append(two.metrics()[key])
    down = two.metrics()
    assert (down["lepton_replica_up", (("replica", "2"),)], down["lepton_endpoint_replicas", ()]) == (0, 2)
    two.begin(2)
    eventually(lambda: two.serves(2), timeout_s=30)
    for _ in range(20):
        two.predict(ROW)
        seen.append(two.metrics()[key])
    eventually(lambda: two.metrics()[key] == 100, timeout_s=10)
    assert seen == sorted(seen)
    two.want(1, release=2)
    assert two.processes[2].wait(timeout=30) == 0
    alone = two.metrics()
    assert (alone[key], alone["lepton_endpoint_replicas", ()]) == (100, 1)
    assert ("lepton_replica_up", (("replica", "2"),)) not in alone


def test_a_canarys_keys_and_figures_are_the_same_in_both(two: Several, tmp_path: Path, eventually: Wait) -> None:
    other = make_bundle(tmp_path / "other", shift=1.0)
    beside = Beside(
        kind="canary", model="Net", version="Net@2", bundle=str(other.root), manifest_hash=other.manifest_hash,
        since=2, share=0.3,
    )  # fmt: skip
    two.want(2, release=2, beside=beside)
    eventually(lambda: two.serves(1, 2) and two.serves(2, 2), timeout_s=30)
    answered: dict[str, set[str]] = {}
    n_asked = 0
    for _ in range(30):
        for user in range(60):
            key = f"user-{user}"
            status, said = two.ask("POST", "/predict", ROW, headers={"X-Lepton-Key": key})
            assert status == 200
            answered.setdefault(key, set()).add(said["version"])
            n_asked += 1
    assert all(len(versions) == 1 for versions in answered.values()), "a key has one version, whoever answers"
    assert {version for versions in answered.values() for version in versions} == {"Net@1", "Net@2"}

    def figures() -> list[Figures]:
        paths = [own_folder(two.folder, number).figures for number in (1, 2)]
        return [msgspec.json.decode(path.read_bytes(), type=Figures) for path in paths if path.exists()]

    def all_told() -> Figures | None:
        found = figures()
        both = together(found) if len(found) == 2 else None
        is_whole = both is not None and both.live.n_requests + both.beside.n_requests == n_asked
        return both if is_whole and both and both.live.predictions and both.beside.predictions else None

    both = eventually(all_told, timeout_s=15)
    assert all(one.live.n_requests > 100 for one in figures()), "both were asked"
    assert both.live.predictions.n_rows == both.live.n_rows and both.beside.predictions.n_rows == both.beside.n_rows
    assert sum(both.live.latency) + sum(both.beside.latency) == n_asked
    deff = both.live.deff  # 30 rows a key
    assert 25 < deff < 35, deff
