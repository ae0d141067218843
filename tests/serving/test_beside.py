"""A canary and a shadow beside a live version, in a real endpoint process."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lepton_jupyter.formats.bundle import Bundle
from lepton_jupyter.formats.endpoint import Beside
from lepton_jupyter.formats.figures import Figures
from lepton_jupyter.formats.requestlog import LoggedRequest, read_segment, segments
from lepton_jupyter.stages.monitor.window import read_log
from tests.serving.graphs import ROW, Server, make_bundle

pytestmark = pytest.mark.slow

Wait = Callable[..., Any]


def beside(bundle: Bundle, kind: Any = "canary", *, since: int = 2, share: float = 0.5) -> Beside:
    return Beside(
        kind=kind, model="Net", version="Net@2", bundle=str(bundle.root), manifest_hash=bundle.manifest_hash,
        since=since, share=share if kind == "canary" else 0.0,
    )  # fmt: skip


@pytest.fixture
def bundles(tmp_path: Path) -> tuple[Bundle, Bundle]:
    return make_bundle(tmp_path / "first"), make_bundle(tmp_path / "second", shift=1.0)


@pytest.fixture
def running(new_server: Callable[[], Server], bundles: tuple[Bundle, Bundle]) -> Server:
    server = new_server()
    server.configure(bundles[0])
    server.start()
    server.wait()
    return server


def figures(server: Server) -> Figures | None:
    try:
        return msgspec.json.decode(server.folder.figures.read_bytes(), type=Figures)
    except FileNotFoundError:
        return None


def logged(server: Server) -> list[LoggedRequest]:
    return [record for path in segments(server.folder.requests) for _, record in read_segment(path)]


def metrics(server: Server, name: str) -> dict[str, float]:
    """Return a metric's values by version."""
    families = text_string_to_metric_families(server.ask("GET", "/metrics")[1])
    samples = [sample for family in families for sample in family.samples]
    return {sample.labels["version"]: sample.value for sample in samples if sample.name == name}


def ask(server: Server, key: str, path: str = "/predict", **headers: str) -> tuple[str, float]:
    """Return which version answered, and with which probability."""
    status, answer = server.ask("POST", path, ROW, headers={"X-Lepton-Key": key, **headers})
    assert status == 200, answer
    return answer["version"], answer["predictions"][0]["probability_yes"]


def test_keys_are_split_by_the_short_way_and_the_long_way_alike_and_stay(
    running: Server, bundles: tuple[Bundle, Bundle], eventually: Wait
) -> None:
    alone = ask(running, "k")[1]
    running.configure(bundles[0], release=2, beside=beside(bundles[1]))
    running.wait(release=2)
    first = [ask(running, f"k{number}") for number in range(60)]
    long = [ask(running, f"k{number}", Expect="100-continue") for number in range(60)]
    assert first == long
    counts = Counter(version for version, _ in first)
    assert 12 <= counts["Net@2"] <= 48
    assert {version: probability == alone for version, probability in first} == {"Net@1": True, "Net@2": False}

    found = eventually(lambda: (f := figures(running)) and f.live.n_requests + f.beside.n_requests == 120 and f)
    assert (found.since, found.beside.n_requests) == (2, 2 * counts["Net@2"])
    assert metrics(running, "lepton_rows_total") == {"Net@1": 1 + 2 * counts["Net@1"], "Net@2": 2 * counts["Net@2"]}
    assert metrics(running, "lepton_canary_share") == {"Net@2": 0.5}
    assert running.ask("POST", "/v2/repository/index")[1] == [
        {"name": "diagnosis", "version": version, "state": "READY", "reason": ""} for version in ("Net@1", "Net@2")
    ]

    running.configure(bundles[0], release=3, beside=beside(bundles[1]), max_rows=10)  # another limit, the same canary
    running.wait(release=3)
    assert [ask(running, f"k{number}") for number in range(20)] == first[:20]
    found = eventually(lambda: (f := figures(running)) and f.live.n_requests + f.beside.n_requests == 140 and f)
    assert running.stop() == 0
    by_version = Counter(record.version for record in logged(running))
    assert by_version["Net@2"] == found.beside.n_requests and by_version.total() == 141


def test_a_version_in_the_address_answers_and_is_not_counted(
    running: Server, bundles: tuple[Bundle, Bundle], eventually: Wait
) -> None:
    running.configure(bundles[0], release=2, beside=beside(bundles[1]))
    running.wait(release=2)
    columns = [{"name": name, "shape": [1], "datatype": kind, "data": [ROW[name]]}
               for name, kind in (("age", "FP64"), ("island", "BYTES"), ("children", "INT64"))]  # fmt: skip
    for version in ("1", "2", "Net@2"):
        for _ in range(5):
            status, answer = running.ask("POST", f"/v2/models/Net/versions/{version}/infer", {"inputs": columns})
            assert status == 200 and answer["model_version"] == f"Net@{version[-1]}", answer
    status, answer = running.ask("GET", "/v2/models/Net/versions/3")
    assert status == 404 and "Known: Net@1, Net@2" in answer["error"]
    assert running.ask("GET", "/v2/models/Net/versions/2")[1]["versions"] == ["Net@2"]
    ask(running, "k")
    found = eventually(lambda: (f := figures(running)) and f.live.n_requests + f.beside.n_requests and f)
    assert found.live.n_requests + found.beside.n_requests == 1


def test_a_killed_endpoint_goes_on_counting_where_it_was(
    running: Server, bundles: tuple[Bundle, Bundle], eventually: Wait
) -> None:
    running.configure(bundles[0], release=2, beside=beside(bundles[1]))
    running.wait(release=2)
    before = [ask(running, f"k{number}") for number in range(30)]
    eventually(lambda: (f := figures(running)) and f.live.n_requests + f.beside.n_requests == 30)
    assert running.process is not None
    running.process.send_signal(signal.SIGKILL)
    running.process.wait()
    running.folder.status.unlink()
    running.start()
    running.wait(release=2)
    assert [ask(running, f"k{number}") for number in range(30)] == before
    eventually(lambda: (f := figures(running)) and f.live.n_requests + f.beside.n_requests == 60)


def test_promotion_and_the_end_of_a_canary_lose_no_request(
    running: Server, bundles: tuple[Bundle, Bundle], tmp_path: Path
) -> None:
    answers: list[str] = []
    failures: list[Any] = []
    is_over = threading.Event()

    def work(client: int) -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            try:
                answers.append(ask(running, f"{client}-{number}")[0])
            except (AssertionError, OSError) as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(client,)) for client in range(4)]
    for thread in threads:
        thread.start()
    running.configure(bundles[0], release=2, beside=beside(bundles[1]))
    running.wait(release=2)
    while not {"Net@1", "Net@2"} <= set(answers):
        ask(running, "x")
    running.configure(bundles[1], release=3, version="Net@2")  # promoted
    running.wait(release=3)
    assert {ask(running, f"k{number}")[0] for number in range(20)} == {"Net@2"}
    third = make_bundle(tmp_path / "third", shift=2.0)
    running.configure(bundles[1], release=4, version="Net@2", beside=msgspec.structs.replace(
        beside(third, since=4), version="Net@3"))  # fmt: skip
    running.wait(release=4)
    while "Net@3" not in answers:
        ask(running, "x")
    running.configure(bundles[1], release=5, version="Net@2")  # rolled back
    running.wait(release=5)
    assert {ask(running, f"k{number}")[0] for number in range(20)} == {"Net@2"}
    assert not running.folder.figures.exists()
    is_over.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_shadow_answers_nobody_and_is_compared(
    running: Server, bundles: tuple[Bundle, Bundle], eventually: Wait
) -> None:
    running.configure(bundles[0], release=2, beside=beside(bundles[1], "shadow"))
    running.wait(release=2)
    rows = [{**ROW, "age": age, "patient": f"p{age}"} for age in range(20, 90)]
    for row in rows:
        assert running.predict(row)["version"] == "Net@1"
    live = running.predict(rows)
    assert live["version"] == "Net@1"
    status, _ = running.ask("POST", "/predict", {"nonsense": 1})
    assert status == 422
    found = eventually(lambda: (f := figures(running)) and f.n_compared == 140 and f)
    assert (found.live.n_requests, found.beside.n_requests, found.n_dropped) == (71, 71, 0)
    assert 70 < found.n_agreed < 140
    assert metrics(running, "lepton_shadow_rows_total") == {"Net@2": 140}
    assert metrics(running, "lepton_shadow_agreement_share") == {"Net@2": found.n_agreed / 140}
    assert metrics(running, "lepton_rows_total") == {"Net@1": 140}
    assert running.ask("GET", "/v2/models/Net/versions/2")[0] == 404, "a shadow is not asked"
    assert running.stop() == 0
    records = logged(running)
    shadows = [record for record in records if record.is_shadow]
    assert {record.version for record in shadows} == {"Net@2"} and len(shadows) == 71
    last = next(record for record in shadows if record.n_rows == 70)
    assert last.ids == [row["patient"] for row in rows]
    assert last.prediction != [one["prediction"] for one in live["predictions"]]
    assert last.request_id == live["request_id"]
    watched = read_log(running.folder.requests, 0, 2e10)
    assert [record.version for record in watched] == ["Net@1"] * 72  # the refused one, too
    assert {record.is_shadow for record in watched} == {False}


def test_a_canary_that_cannot_be_loaded_is_named_and_the_live_version_serves_on(
    running: Server, bundles: tuple[Bundle, Bundle], tmp_path: Path, eventually: Wait
) -> None:
    rubbish = make_bundle(tmp_path / "rubbish", content=b"no graph")
    running.configure(bundles[0], release=2, beside=beside(rubbish))
    status = eventually(lambda: (s := running.status()) and s.error_release == 2 and s)
    assert (status.state, status.release) == ("ready", 1) and "cannot be loaded" in status.error
    assert {ask(running, f"k{number}")[0] for number in range(20)} == {"Net@1"}
    assert running.stop() == 0
    running.folder.status.unlink()
    running.start()  # anew with the same configuration
    status = running.wait(release=2)
    assert status.error_release == 2 and "cannot be loaded" in status.error
    assert {ask(running, f"k{number}")[0] for number in range(20)} == {"Net@1"}
