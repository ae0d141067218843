"""A real endpoint process, asked over HTTP."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lepton_jupyter.formats.requestlog import read_segment, segments
from lepton_jupyter.serving.app import MAX_IN_FLIGHT
from lepton_jupyter.serving.scorer import Scorer
from tests.serving.graphs import ROW, SCHEMA_MULTI, SCHEMA_REGRESSION, TOKEN, Server, make_bundle

pytestmark = pytest.mark.slow

LIMIT = 64 * 2**20
ROUTES = ["/", "/metrics", "/predict", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/Net",
          "/v2/models/Net/ready", "/v2/models/Net/infer", "/nothing", "/v2/nothing"]  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        ROW,
        [ROW],
        {"rows": [ROW]},
        {"columns": {name: [value] for name, value in ROW.items()}},
        {"rows": [{**ROW, "sick": "yes", "remark": {"deep": []}}]},
    ],
)
def test_every_form_of_rows_gets_the_same_answer(server: Server, body: Any) -> None:
    answer = server.predict(body)
    (row,) = answer["predictions"]
    assert list(row) == ["prediction", "probability_no", "probability_yes"]
    assert row["prediction"] == "yes" and row["probability_yes"] == pytest.approx(0.549834, abs=1e-6)
    assert (answer["model"], answer["version"]) == ("Net", "Net@1")
    assert answer["request_id"]


def test_ids_missing_values_and_order_are_kept(server: Server) -> None:
    rows = [{**ROW, "patient": number, "age": None if number % 2 else number} for number in range(100)]
    answer = server.predict(rows)["predictions"]
    assert [row["patient"] for row in answer] == list(range(100))
    assert len({row["probability_yes"] for row in answer[1::2]}) == 1
    assert server.predict([])["predictions"] == []


def test_a_request_id_is_echoed_and_kept_in_the_log(server: Server, eventually: Callable[..., Any]) -> None:
    _, answer, headers = server.ask_fully("POST", "/predict", [ROW], headers={"X-Request-Id": "mine-1"})
    assert headers["x-request-id"] == answer["request_id"] == "mine-1"
    _, _, headers = server.ask_fully("GET", "/healthz", headers={"X-Request-Id": "with blanks in it"})
    assert " " not in headers["x-request-id"]

    def logged() -> Any:
        found = [r for path in segments(server.folder.requests) for _, r in read_segment(path)]
        return [record for record in found if record.request_id == "mine-1"]

    (record,) = eventually(logged, timeout_s=5)
    assert (record.version, record.n_rows, record.txt, record.prediction) == ("Net@1", 1, [["Dream"]], ["yes"])
    assert len(record.num) == 16 and len(record.probability) == 8 and record.latency_ms > 0


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b'{"rows": [', 400, "not valid JSON"),
        (b'{"rows": [{"age": NaN}]}', 400, "send null where a value is missing"),
        (b"", 400, "not valid JSON"),
        (b"\xff\xfe", 400, "not valid JSON"),
        (b"[" * 200_000, 400, "nested too deeply"),
        (b'"\\ud800"', 400, "not valid JSON"),
        (b"1e999", 400, "out of range"),
        (b"7", 422, "7 (number) is given; an object, a list of objects, 'rows' or 'columns' is wanted"),
        (b'{"rows": 7}', 422, "Row 0, column 'rows'"),
        ({"rows": [ROW], "more": 1}, 422, "Row 0, column 'more': the model knows no such column"),
        ([ROW, 7], 422, "Row 1: 7 (number) is given"),
        ([ROW, {"age": 1, "island": "x"}], 422, "Row 1, column 'children': the column is missing"),
        ([{**ROW, "agee": 1}], 422, "Did you mean 'age'?"),
        ([ROW, {**ROW, "age": "old"}], 422, "Row 1, column 'age': 'old' (text) is given; a number is wanted"),
        ({"columns": {"age": [1]}}, 422, "Column 'island': the column is missing"),
        ({"columns": {"age": 1, "island": ["x"], "children": [1]}}, 422, "a column is a list"),
        ({"columns": {"age": [1], "island": ["x"], "children": [1, 2]}}, 422, "Column 'age': 1 values are given"),
        ([{**ROW, "patient": [1]}], 422, "an id is text or a number"),
        ([{**ROW, "age": 10**400}], 422, "is too large"),
    ],
)
def test_bad_bodies_are_refused_with_the_reason(server: Server, body: Any, status: int, said: str) -> None:
    found, answer = server.ask("POST", "/predict", body)
    assert found == status, answer
    error = answer["error"]
    assert said in f"{error['message']}\n{error['hint']}"
    assert error["code"] == "bad_input"


def test_faults_are_listed_by_row_and_column(server: Server) -> None:
    rows = [{**ROW, "age": "old"}, ROW, {**ROW, "children": 1.5}]
    _, answer = server.ask("POST", "/predict", rows)
    assert [(fault["row"], fault["column"]) for fault in answer["faults"]] == [(0, "age"), (2, "children")]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("token", [None, "wrong", "a-token-for-test", "a-token-for-tests-"])
def test_nothing_but_health_answers_without_the_token(server: Server, path: str, token: str | None) -> None:
    for method in ("GET", "POST", "DELETE"):
        status, answer, headers = server.ask_fully(method, path, token=token)
        assert status == 401
        assert str(server.folder.token) in str(answer) and headers["www-authenticate"] == "Bearer"


def test_health_and_readiness_need_no_token(server: Server) -> None:
    assert server.ask("GET", "/healthz", token=None) == (200, {"live": True})
    assert server.ask("GET", "/readyz", token=None) == (200, {"ready": True})
    assert server.ask("HEAD", "/healthz", token=None) == (200, "")


def test_tokens_of_odd_bytes_are_wrong_and_no_more(server: Server) -> None:
    for said in ("Bearer", "Basic YTpi", "Bearer \xff\xfe", "Bearer " + "x" * 8000, "a-token-for-tests"):
        assert server.ask("GET", "/", token=None, headers={"Authorization": said})[0] == 401
    assert server.ask("GET", "/", token=None, headers={"Authorization": "bearer a-token-for-tests"})[0] == 200


def test_unknown_paths_and_methods_say_what_is_known(server: Server) -> None:
    status, answer = server.ask("GET", "/predikt")
    assert status == 404 and "/predict" in answer["error"]["hint"]
    status, answer, headers = server.ask_fully("GET", "/predict")
    assert status == 405 and headers["allow"] == "POST"
    status, _, headers = server.ask_fully("POST", "/metrics", b"")
    assert status == 405 and headers["allow"] == "GET, HEAD"
    assert server.ask("GET", "/v2/models/Net/infer")[0] == 405


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/python-pickle"},
        {"Content-Encoding": "br"},
        {"Inference-Header-Content-Length": "10"},
    ],
)
def test_other_kinds_of_content_are_415(server: Server, headers: dict[str, str]) -> None:
    assert server.ask("POST", "/predict", [ROW], headers=headers)[0] == 415


def _chunks(size: int) -> Iterator[bytes]:
    head = json.dumps([ROW]).encode()
    yield head
    size -= len(head)
    while size > 0:
        yield b" " * min(size, 2**20)
        size -= 2**20


@pytest.mark.parametrize("is_chunked", [True, False])
def test_a_body_of_one_byte_too_many_is_413_and_one_less_is_answered(server: Server, is_chunked: bool) -> None:
    for size, wanted in ((LIMIT, 200), (LIMIT + 1, 413)):
        body: Any = _chunks(size) if is_chunked else json.dumps([ROW]).encode().ljust(size)
        status, answer = server.ask("POST", "/predict", body)  # http.client sends what an iterator gives in chunks
        assert status == wanted, answer
    assert f"larger than {LIMIT} bytes" in answer["error"]["message"]
    assert server.predict(ROW)


def test_a_body_of_ten_megabytes_is_answered(server: Server) -> None:
    n_rows = 10 * 2**20 // len(json.dumps({**ROW, "remark": "x" * 100})) + 1
    answer = server.predict({"rows": [{**ROW, "age": i % 90, "remark": "x" * 100} for i in range(n_rows)]})
    assert len(answer["predictions"]) == n_rows
    status, answer = server.ask(
        "POST", "/predict", {"columns": {name: [value] * 100_001 for name, value in ROW.items()}}
    )
    assert status == 413 and "at most 100000" in answer["error"]["message"]


def test_many_at_once_each_get_their_own_rows(server: Server) -> None:
    wrong: list[Any] = []

    def ask(client: int) -> None:
        for number in range(20):
            rows = [{**ROW, "patient": f"{client}-{number}-{row}"} for row in range(1 + number % 4)]
            found = [row["patient"] for row in server.predict(rows)["predictions"]]
            if found != [row["patient"] for row in rows]:
                wrong.append(found)

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_metrics_count_requests_rows_and_name_the_version(server: Server) -> None:
    def read() -> dict[tuple[str, str, str], float]:
        families = text_string_to_metric_families(server.ask("GET", "/metrics")[1])
        samples = [sample for family in families for sample in family.samples]
        return {(s.name, s.labels.get("route", ""), s.labels.get("code", "")): s.value for s in samples} | {
            ("version", s.labels["version"], ""): s.value for s in samples if s.name == "lepton_version_info"
        }

    before = read()
    server.predict([ROW, ROW])
    server.ask("POST", "/predict", b"nonsense")
    after = read()

    def grown(*key: str) -> float:
        return after[key] - before.get(key, 0)  # type: ignore[index]

    assert grown("lepton_requests_total", "/predict", "200") == 1
    assert grown("lepton_requests_total", "/predict", "400") == 1
    assert grown("lepton_rows_total", "", "") == 2
    assert grown("lepton_request_seconds_count", "/predict", "") == 2
    assert after["version", "Net@1", ""] == 1
    assert after["lepton_request_log_lost_total", "", ""] == 0


def test_the_root_says_what_is_served_with_a_row_that_works(server: Server) -> None:
    status, about = server.ask("GET", "/")
    assert status == 200
    assert (about["endpoint"], about["model"], about["version"], about["ready"]) == ("diagnosis", "Net", "Net@1", True)
    assert server.predict(about["example"])


def test_a_client_that_goes_away_harms_nobody(server: Server) -> None:
    status = server.status()
    assert status is not None
    for sent in (b"POST /predict HTTP/1.1\r\n", b"rubbish\r\n\r\n", b"\x00" * 100):
        with socket.create_connection(("127.0.0.1", status.port)) as line:
            line.sendall(sent)
    connection = HTTPConnection("127.0.0.1", status.port)
    connection.putrequest("POST", "/predict")
    for name, value in (("Authorization", "Bearer a-token-for-tests"), ("Content-Length", "100")):
        connection.putheader(name, value)
    connection.endheaders(b"[{")
    connection.close()
    assert server.predict(ROW)


def test_more_requests_than_it_takes_are_429_and_soon_answered_again(
    server: Server, eventually: Callable[..., Any]
) -> None:
    status = server.status()
    assert status is not None
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a-token-for-tests\r\nContent-Length: 9\r\n\r\n["
    lines = [socket.create_connection(("127.0.0.1", status.port)) for _ in range(MAX_IN_FLIGHT)]
    for line in lines:
        line.sendall(head)

    def answer(wanted: int) -> Any:
        found = server.ask_fully("POST", "/predict", ROW)
        return found if found[0] == wanted else None

    _, said, headers = eventually(lambda: answer(429), timeout_s=10)
    assert headers["retry-after"] == "1" and said["error"]["code"] == "unavailable"
    assert server.ask("GET", "/readyz")[0] == 200
    for line in lines:
        line.close()
    assert eventually(lambda: answer(200), timeout_s=10)


@pytest.mark.parametrize("schema", [SCHEMA_MULTI, SCHEMA_REGRESSION])
def test_other_tasks_give_the_table_of_the_scorer(
    new_server: Callable[[], Server], tmp_path: Path, schema: Any
) -> None:
    from lepton_jupyter.formats.packing import pack_rows

    bundle = make_bundle(tmp_path / "b", schema)
    server = new_server()
    server.configure(bundle)
    server.start()
    server.wait()
    rows = [ROW, {**ROW, "island": None}]
    scorer = Scorer(bundle)
    table = scorer.table(scorer.score(pack_rows(schema, rows)))
    found = server.predict(rows)["predictions"]
    assert {name: [row[name] for row in found] for name in found[0]} == table


def test_refused_rows_are_in_the_log_with_the_reason_and_strangers_are_not(
    server: Server, eventually: Callable[..., Any]
) -> None:
    for name, body, token in (("odd", [{**ROW, "age": "old"}], TOKEN), ("stranger", [ROW], None)):
        server.ask("POST", "/predict", body, token=token, headers={"X-Request-Id": name})
    server.ask("POST", "/predict", [ROW], headers={"X-Request-Id": "last"})

    def logged() -> Any:
        found = [r for path in segments(server.folder.requests) for _, r in read_segment(path)]
        named = {record.request_id: record for record in found}
        return named if "last" in named else None

    named = eventually(logged, timeout_s=20)
    assert "stranger" not in named
    assert (named["odd"].status, named["odd"].n_rows) == (422, 0)
    assert "'age'" in named["odd"].error
    assert (named["last"].status, named["last"].error, named["last"].bundle) == (200, "", "bundle")
