"""MLflow's way of asking, and CSV."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.serving.graphs import ROW, TOKEN, Server

pytestmark = pytest.mark.slow

ROWS = [ROW, {"age": None, "island": "Biscoe", "children": 1}]
NAMES = list(ROW)
SPLIT = {"columns": NAMES, "index": [0, 1], "data": [[row[name] for name in NAMES] for row in ROWS]}
CSV = b'\xef\xbb\xbfpatient,age,island,children,remark\r\n7,50,Dream,2,\r\nx8,,Biscoe,1.0,"a, b"\r\n'
AS_CSV = {"Content-Type": "text/csv; charset=utf-8"}


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": SPLIT},
        {"dataframe_records": ROWS, "params": {}},
        {"instances": ROWS},
        {"inputs": {name: [row[name] for row in ROWS] for name in NAMES}},
        {"inputs": ROWS},
        str({"dataframe_split": SPLIT}).replace("'", '"').replace("None", "NaN").encode(),
    ],
    ids=["split", "records", "instances", "columns", "inputs", "with NaN"],
)
def test_every_form_is_answered_as_predict(server: Server, body: Any) -> None:
    status, answer = server.ask("POST", "/invocations", body)
    assert status == 200, answer
    assert answer["predictions"] == server.predict(ROWS)["predictions"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "not valid JSON"),
        (b"[" * 100_000, 400, "nested too deeply"),
        (b'{"instances": [{"age": NaN, "patient": "\\ud800"}]}', 400, "not valid JSON"),
        (b'{"instances": [{"age": NaN, "children": 1e999}]}', 400, "out of range"),
        (b'{"instances": [{"age": NaN, "children": -Infinity}]}', 400, "not valid JSON"),
        ([ROW], 400, "a list is given; one of dataframe_split"),
        ({}, 400, "Nothing is given"),
        ({"rows": [ROW]}, 400, "rows is given"),
        ({"inputs": [ROW], "instances": [ROW]}, 400, "inputs, instances is given"),
        ({"instances": 7}, 422, "'instances' is 7 (number)"),
        ({"instances": [7]}, 422, "Row 0: 7 (number) is given"),
        ({"dataframe_split": [1]}, 422, "wants 'columns'"),
        ({"dataframe_split": SPLIT | {"data": [[1]]}}, 422, "a list of 3 values is wanted"),
        ({"inputs": {"age": [1]}}, 422, "Column 'island': the column is missing"),
        ({"instances": [ROW] * 100_001}, 413, "at most 100000"),
    ],
)
def test_other_bodies_are_refused_with_the_reason(server: Server, body: Any, status: int, said: str) -> None:
    found, answer = server.ask("POST", "/invocations", body)
    assert found == status, answer
    assert said in answer["error"]["message"]


@pytest.mark.parametrize("path", ["/predict", "/invocations"])
def test_csv_is_answered_as_objects_with_its_ids(server: Server, path: str) -> None:
    status, answer = server.ask("POST", path, CSV, headers=AS_CSV)
    assert status == 200, answer
    wanted = [{**row, "patient": value} for row, value in zip(ROWS, (7, "x8"), strict=True)]
    assert answer["predictions"] == server.predict(wanted)["predictions"]
    ids = [b"7", b"007", b"7.0", b"-3", b"1" * 30, b"-", "٣".encode(), b""]
    rows = b"".join(b"%s,1,x,1\n" % each for each in ids)
    found = server.ask("POST", path, b"patient,age,island,children\n" + rows, headers=AS_CSV)[1]["predictions"]
    said = [json.dumps(row["patient"], ensure_ascii=False) for row in found]
    assert said == ["7", '"007"', '"7.0"', "-3", f'"{"1" * 30}"', '"-"', '"٣"', "null"]
    assert server.ask("POST", path, b"age,island,children\n", headers=AS_CSV)[1]["predictions"] == []


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "a line of column names is wanted"),
        (b"\xff\xfe", 400, "no CSV in UTF-8"),
        (b'age,island\n"1', 400, "no CSV in UTF-8"),
        (b"age,age\n1,2\n", 400, "named twice"),
        (b"age,island,children\n1,x\n", 422, "Row 0: 2 fields are given; the header has 3"),
        (b"age,island,children\nold,x,1\n", 422, "Row 0, column 'age': 'old' (text) is given"),
        (b"age,island,children\ninf,x,1\n", 422, "Row 0, column 'age'"),
        (b"age,island,children\n1,x,1.5\n", 422, "has a fraction"),
        (b"age,island\n1,x\n", 422, "Column 'children': the column is missing"),
        (b"age,island,children\n" + b"1,x,1\n" * 100_001, 413, "at most 100000"),
    ],
    ids=range(10),
)
def test_bad_csv_is_refused_with_the_reason(server: Server, body: bytes, status: int, said: str) -> None:
    found, answer = server.ask("POST", "/predict", body, headers=AS_CSV)
    assert found == status, answer
    assert said in f"{answer['error']['message']} {answer['error']['hint']}"


def test_the_token_may_come_as_a_password(server: Server) -> None:
    def ask(credentials: bytes) -> int:
        said = "Basic " + base64.b64encode(credentials).decode()
        return server.ask("POST", "/invocations", {"instances": ROWS}, token=None, headers={"Authorization": said})[0]

    assert ask(f"anybody:{TOKEN}".encode()) == 200
    assert [ask(one) for one in (TOKEN.encode(), b"anybody:", b":wrong", b"\xff")] == [401] * 4
    assert server.ask("GET", "/ping", token=None) == (200, {"ready": True})


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred")  # MLflow's own, on import
def test_mlflows_own_client_is_answered(server: Server) -> None:
    import pandas as pd
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    status = server.status()
    assert status is not None
    client = ScoringServerClient(host=f"mlflow:{TOKEN}@127.0.0.1", port=status.port)
    client.ping()
    assert client.get_version()
    found = client.invoke(pd.DataFrame(ROWS)).get_predictions()
    wanted = server.predict(ROWS)["predictions"]
    assert found.to_dict("records") == wanted
