"""The Open Inference Protocol, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from lepton_jupyter.formats.schema import SENTINEL
from tests.serving.graphs import ROW, Server

pytestmark = pytest.mark.slow

INFER = "/v2/models/diagnosis/infer"
NUM = {"name": "num", "shape": [2, 2], "datatype": "FP64", "data": [[50.0, 2], [None, 1]]}
TXT = {"name": "txt", "shape": [2, 1], "datatype": "BYTES", "data": ["Dream", None]}
COLUMNS = [
    {"name": "children", "shape": [2, 1], "datatype": "INT32", "data": [[2], [1]]},
    {"name": "age", "shape": [2], "datatype": "FP32", "data": [50, None]},
    {"name": "island", "shape": [2], "datatype": "BYTES", "data": ["Dream", None]},
]


def changed(tensor: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**tensor, **changes}


def without(tensor: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in tensor.items() if key != name}


def test_server_and_model_say_what_they_are(server: Server) -> None:
    assert server.ask("GET", "/v2")[1]["name"] == "lepton_jupyter"
    assert server.ask("GET", "/v2/health/live") == (200, {"live": True})
    assert server.ask("GET", "/v2/health/ready") == (200, {"ready": True})
    for name in ("Net", "diagnosis"):
        assert server.ask("GET", f"/v2/models/{name}/ready") == (200, {"name": name, "ready": True})
        status, about = server.ask("GET", f"/v2/models/{name}")
        assert status == 200 and about["name"] == name and about["versions"] == ["Net@1"]
        assert about["inputs"] == [
            {"name": "num", "datatype": "FP64", "shape": [-1, 2]},
            {"name": "txt", "datatype": "BYTES", "shape": [-1, 1]},
        ]
        assert [output["name"] for output in about["outputs"]] == ["prediction", "probability"]
    assert server.ask("GET", "/v2/models/diagnosis/versions/1/ready")[0] == 200
    assert server.ask("GET", "/v2/models/diagnosis/versions/2")[0] == 404
    status, answer = server.ask("POST", "/v2/models/other/infer", {"inputs": []})
    assert status == 404 and "Known: diagnosis, Net" in answer["error"]


@pytest.mark.parametrize("inputs", [[NUM, TXT], [TXT, NUM], COLUMNS])
def test_packed_inputs_and_columns_answer_as_predict(server: Server, inputs: list[Any]) -> None:
    rows = [ROW, {"age": None, "island": None, "children": 1}]
    wanted = server.predict(rows)["predictions"]
    status, answer = server.ask("POST", INFER, {"id": "q1", "inputs": inputs})
    assert status == 200, answer
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("q1", "diagnosis", "Net@1")
    prediction, probability = answer["outputs"]
    assert prediction == {
        "name": "prediction",
        "datatype": "BYTES",
        "shape": [2],
        "data": [row["prediction"] for row in wanted],
    }
    assert (probability["datatype"], probability["shape"]) == ("FP32", [2, 2])
    assert probability["data"] == [row[f"probability_{label}"] for row in wanted for label in ("no", "yes")]


def test_only_the_outputs_that_are_asked_for_come(server: Server) -> None:
    body = {"inputs": [NUM, TXT], "outputs": [{"name": "probability", "parameters": {"binary_data": False}}]}
    _, answer = server.ask("POST", INFER, body)
    assert [output["name"] for output in answer["outputs"]] == ["probability"]
    status, answer = server.ask("POST", INFER, {"inputs": [NUM, TXT], "outputs": [{"name": "logit"}]})
    assert status == 400 and "Known: prediction, probability" in answer["error"]


@pytest.mark.parametrize(
    ("inputs", "status", "said"),
    [
        ([], 422, "the column is missing"),
        ([NUM], 400, "'txt' is missing"),
        ([NUM, NUM], 400, "given twice"),
        ([changed(NUM, shape=[2, 3]), TXT], 400, "4 values are given for shape [2, 3]"),
        ([changed(NUM, shape=[4]), TXT], 400, "is wanted"),
        ([changed(NUM, shape=[1, 4]), TXT], 400, "is wanted"),
        ([changed(NUM, shape=[-2, -2]), TXT], 400, "negative size"),
        ([changed(NUM, shape=[10**30, 0], data=[]), TXT], 413, "at most"),
        ([changed(NUM, shape=[0, 10**30], data=[]), changed(TXT, shape=[0, 1], data=[])], 400, "is wanted"),
        ([changed(NUM, datatype="FP8"), TXT], 400, "datatype 'FP8' is unknown"),
        ([changed(NUM, datatype="BYTES"), TXT], 400, "is no BYTES"),
        ([changed(NUM, datatype="UINT8", data=[1, 2, 3, 256]), TXT], 400, "'256' is no UINT8"),
        ([changed(NUM, data=[1, 2, 3, "4"]), TXT], 400, "'4' is no FP64"),
        ([changed(NUM, data=[1, 2, 3, True]), TXT], 400, "is no FP64"),
        ([changed(NUM, data=[[1, 2], 3, 4]), TXT], 400, "nested unevenly"),
        ([without(NUM, "data"), TXT], 400, "missing required field `data`"),
        ([changed(NUM, data="abc"), TXT], 400, "Expected `array`"),
        ([NUM, changed(TXT, data=[1, 2])], 400, "is no BYTES"),
        ([NUM, changed(TXT, data=["x", SENTINEL])], 400, "reserved"),
        ([changed(NUM, data=[1, 2, 3, 4.5]), TXT], 422, "Row 1, column 'children': 4.5 (number) has a fraction"),
        ([*COLUMNS[:2], changed(COLUMNS[2], name="islnd")], 422, "Did you mean 'island'?"),
        ([*COLUMNS[:2], changed(COLUMNS[2], datatype="INT8", data=[1, 2])], 422, "text is wanted"),
        ([*COLUMNS[:2], changed(COLUMNS[2], shape=[1, 2])], 400, "a column is [N] or [N, 1]"),
        ([*COLUMNS[:2], changed(COLUMNS[2], shape=[1], data=["x"])], 422, "1 values are given; other columns have 2"),
    ],
)
def test_bad_tensors_are_400_and_wrong_rows_422(server: Server, inputs: Any, status: int, said: str) -> None:
    found, answer = server.ask("POST", INFER, {"inputs": inputs})
    assert found == status, answer
    assert said in answer["error"]


def test_a_body_that_is_not_of_the_protocol_is_400(server: Server) -> None:
    for body in (b"", b"[]", b"{}", b'{"inputs": 3}', b'{"inputs": [{"name": NaN}]}', b"[" * 100_000):
        status, answer = server.ask("POST", INFER, body)
        assert status == 400 and isinstance(answer["error"], str)
