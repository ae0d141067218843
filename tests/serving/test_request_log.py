"""What a real endpoint process leaves on the disk of what it was asked."""

from __future__ import annotations

import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lepton_jupyter.formats.endpoint import Options
from lepton_jupyter.formats.personal import pseudonyms
from lepton_jupyter.formats.requestlog import LoggedRequest, is_sampled, read_segment, segments
from lepton_jupyter.formats.retention import removed
from lepton_jupyter.serving import journal as journals
from lepton_jupyter.serving.journal import UNQUOTED, Journal
from lepton_jupyter.serving.predict import read
from lepton_jupyter.serving.reading import RowReader
from lepton_jupyter.serving.release import Release
from lepton_jupyter.serving.scorer import Scorer
from tests.serving.graphs import ROW, SCHEMA_BINARY, Server, graph_of_tensors, make_bundle

pytestmark = pytest.mark.slow

NewServer = Callable[[], Server]
Wait = Callable[..., Any]

PERSONAL = msgspec.structs.replace(SCHEMA_BINARY, personal=("age", "island", "patient"))
AGE, ISLAND, PATIENT = 51.98765, "Katharinenhof 7", "anna.schmidt@example.org"
HERS = {"age": AGE, "island": ISLAND, "children": 2, "patient": PATIENT}
NEEDLES = (struct.pack("<d", AGE), struct.pack(">d", AGE), b"51.98765", b"Katharinenhof", b"anna.schmidt", b"Wuthering")


def begin(server: Server, bundle: Any, **options: Any) -> Server:
    """Start a server with these options."""
    server.configure(bundle, options=Options(**options))
    server.start()
    server.wait()
    return server


def logged(server: Server) -> list[LoggedRequest]:
    """Return what is in the log now."""
    return [record for path in segments(server.folder.requests) for _, record in read_segment(path)]


def metric(server: Server, name: str) -> float:
    """Return a counter."""
    families = text_string_to_metric_families(server.ask("GET", "/metrics")[1])
    (value,) = [sample.value for family in families for sample in family.samples if sample.name == name]
    return float(value)


def ask_in_every_way(server: Server) -> None:
    """Send her row by each route, and once in a way that is refused with the value in the reason."""
    server.predict([HERS, {**HERS, "age": None}])
    table = f"age,island,children,patient\n{AGE},{ISLAND},2,{PATIENT}".encode()
    assert server.ask("POST", "/predict", table, headers={"Content-Type": "text/csv"})[0] == 200
    assert server.ask("POST", "/invocations", {"dataframe_records": [HERS]})[0] == 200
    tensors = [
        {"name": "age", "datatype": "FP64", "shape": [1], "data": [AGE]},
        {"name": "island", "datatype": "BYTES", "shape": [1], "data": [ISLAND]},
        {"name": "children", "datatype": "INT64", "shape": [1], "data": [2]},
    ]
    assert server.ask("POST", "/v2/models/Net/infer", {"inputs": tensors})[0] == 200
    for wrong in ([{**HERS, "age": "Wuthering Heights"}], [{**HERS, "anna.schmidt@example.org": 1}]):
        status, answer = server.ask("POST", "/predict", wrong)
        assert status == 422 and any(needle.decode() in str(answer) for needle in NEEDLES[3:])


def everything(folder: Path) -> bytes:
    """Return the bytes of all files."""
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("mode", [None, "drop", "hash"])
def test_personal_values_never_reach_the_disk(
    new_server: NewServer, tmp_path: Path, eventually: Wait, mode: Any
) -> None:
    server = begin(new_server(), make_bundle(tmp_path / "bundle", PERSONAL), personal=mode)
    ask_in_every_way(server)
    records = eventually(lambda: found if len(found := logged(server)) == 6 else None, timeout_s=10)
    assert server.stop() == 0
    content = everything(server.folder.root)
    assert not [needle for needle in NEEDLES if needle in content]
    first, *others = records
    assert others[-1].error == UNQUOTED and others[-1].status == 422
    assert first.n_rows == 2 and first.prediction == ["no"] * 2 and len(first.probability) == 16
    assert struct.unpack("<4d", first.num)[1::2] == (2.0, 2.0)  # what nobody marked
    assert set(first.withheld) >= {"age", "island"}
    if mode != "hash":
        assert first.ids is None and set(first.withheld.values()) == {None}
        assert not server.folder.personal_key.exists()
        return
    key = server.folder.personal_key.read_bytes()
    assert server.folder.personal_key.stat().st_mode & 0o777 == 0o600
    assert first.withheld == {"age": [*pseudonyms(key, [AGE]), None], "island": pseudonyms(key, [ISLAND]) * 2}
    assert first.ids == pseudonyms(key, [PATIENT]) * 2
    assert content.count(key) == 1  # its own file


def test_pseudonyms_are_the_same_after_a_kill(new_server: NewServer, tmp_path: Path, eventually: Wait) -> None:
    server = begin(new_server(), make_bundle(tmp_path / "bundle", PERSONAL), personal="hash")
    server.predict([HERS])
    (first,) = eventually(lambda: logged(server), timeout_s=10)
    assert server.process is not None
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    server.folder.status.unlink()
    server.start()
    server.wait()
    server.predict([HERS])
    _, second = eventually(lambda: found if len(found := logged(server)) == 2 else None, timeout_s=10)
    assert (first.withheld, first.ids) == (second.withheld, second.ids) and first.ids


def test_a_key_that_cannot_be_read_loses_what_is_personal_and_nothing_else(
    new_server: NewServer, tmp_path: Path, eventually: Wait
) -> None:
    server = new_server()
    server.folder.personal_key.mkdir(parents=True)
    begin(server, make_bundle(tmp_path / "bundle", PERSONAL), personal="hash")
    server.predict([HERS])
    server.ask("POST", "/predict", [{}])
    eventually(lambda: metric(server, "lepton_request_log_lost_total") == 1, timeout_s=10)
    assert [record.status for record in eventually(lambda: logged(server), timeout_s=10)] == [422]
    server.folder.personal_key.rmdir()
    server.predict([HERS])
    assert eventually(lambda: [r for r in logged(server) if r.status == 200], timeout_s=10)[0].ids


def test_kept_means_kept_and_refusals_say_why(new_server: NewServer, tmp_path: Path, eventually: Wait) -> None:
    server = begin(new_server(), make_bundle(tmp_path / "bundle", PERSONAL), personal="keep")
    server.predict([HERS])
    server.ask("POST", "/predict", [{**HERS, "age": "Wuthering Heights"}])
    answered, refused = eventually(lambda: found if len(found := logged(server)) == 2 else None, timeout_s=10)
    assert (answered.ids, answered.txt, answered.withheld) == ([PATIENT], [[ISLAND]], {})
    assert "Wuthering" in refused.error


def test_a_share_of_the_requests_is_logged_and_the_rest_is_counted(
    new_server: NewServer, tmp_path: Path, eventually: Wait
) -> None:
    server = begin(new_server(), make_bundle(tmp_path / "bundle"), log_share=0.25)
    ids = [f"request-{number}" for number in range(60)]
    for name in ids:
        assert server.ask("POST", "/predict", [ROW, ROW], headers={"X-Request-Id": name})[0] == 200
        assert server.ask("POST", "/predict", [{}], headers={"X-Request-Id": f"bad-{name}"})[0] == 422
    wanted = {name for name in ids if is_sampled(name, 0.25)} | {f"bad-{name}" for name in ids}
    records = eventually(lambda: found if len(found := logged(server)) >= len(wanted) else None, timeout_s=10)
    assert {record.request_id for record in records} == wanted and len(records) == len(wanted)
    assert {(record.share, record.status) for record in records} == {(0.25, 200), (1.0, 422)}
    n_left_out = 120 - len(wanted)
    eventually(lambda: metric(server, "lepton_request_log_left_out_total") == n_left_out, timeout_s=10)
    assert metric(server, "lepton_request_log_lost_total") == 0


def test_a_share_of_nothing_logs_refusals_only(new_server: NewServer, tmp_path: Path, eventually: Wait) -> None:
    server = begin(new_server(), make_bundle(tmp_path / "bundle"), log_share=0.0)
    server.predict([ROW])
    server.ask("POST", "/predict", [{}])
    (record,) = eventually(lambda: logged(server), timeout_s=10)
    assert record.status == 422
    assert metric(server, "lepton_request_log_left_out_total") == 1


def test_a_model_of_tensors_keeps_none_where_they_are_personal(
    new_server: NewServer, tmp_path: Path, eventually: Wait
) -> None:
    schema = msgspec.structs.replace(
        SCHEMA_BINARY, columns=(), tensor_shape=(2, 2), task="regression", classes=(), targets=("y",), positive=None,
        personal=("tensor",),
    )  # fmt: skip
    server = begin(new_server(), make_bundle(tmp_path / "bundle", schema, content=graph_of_tensors()))
    server.predict([[[AGE, 1.0], [2.0, 3.0]]])
    (record,) = eventually(lambda: logged(server), timeout_s=10)
    assert (record.n_rows, record.tensor, record.withheld) == (1, b"", {"tensor": None})
    assert record.prediction[0][0] == pytest.approx(AGE + 6, abs=1e-4)


def test_a_small_log_turns_early_drops_its_oldest_and_says_how_many(
    tmp_path: Path, eventually: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "TIDY_S", 0.0)
    server = Server(tmp_path)
    config = server.configure(make_bundle(tmp_path / "bundle"), options=Options(log_gb=40e-6))
    scorer = Scorer(make_bundle(tmp_path / "other"))
    release = Release(config, scorer, RowReader(scorer.schema))
    journal = Journal(server.folder.requests, server.folder.personal_key, config.options)
    journal.follow(release)
    asked = read(release, msgspec.json.encode([ROW] * 50))
    outputs = scorer.score(asked.rows)
    eventually(lambda: journal._writer.segment_bytes == 10_000, timeout_s=10)
    n_asked = 0
    while not journal.n_removed:
        assert n_asked < 2_000
        for _ in range(20):
            journal.add(release, asked, outputs, request_id=f"r{n_asked}", latency_ms=1.0)
            n_asked += 1
        before = journal._n_rows_added
        eventually(lambda wanted=before: journal._n_rows_done == wanted, timeout_s=10)
    journal.close()
    kept = [record.request_id for record in logged(server)]
    gone = removed(server.folder.requests)
    assert kept == [f"r{number}" for number in range(n_asked - len(kept), n_asked)]
    assert gone.n_requests == n_asked - len(kept) and gone.n_rows == 50 * gone.n_requests
    assert sum(path.stat().st_size for path in segments(server.folder.requests)) <= 80_000
