"""The Open Inference Protocol, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest

from lepton_jupyter.formats.schema import SENTINEL
from lepton_jupyter.serving.tensors import read_tensor, write_tensor
from tests.serving.graphs import ROW, TOKEN, Server

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
        ([changed(NUM, shape=[242620343, -1]), TXT], 400, "negative size"),
        ([changed(NUM, shape=[10**30, 0], data=[]), TXT], 413, "at most"),
        ([changed(NUM, shape=[0, 10**30], data=[]), changed(TXT, shape=[0, 1], data=[])], 400, "is wanted"),
        ([changed(NUM, datatype="FP8"), TXT], 400, "datatype 'FP8' is unknown"),
        ([changed(NUM, datatype="BYTES"), TXT], 400, "is no BYTES"),
        ([changed(NUM, datatype="UINT8", data=[1, 2, 3, 256]), TXT], 400, "'256' is no UINT8"),
        ([changed(NUM, data=[1, 2, 3, "4"]), TXT], 400, "'4' is no FP64"),
        ([changed(NUM, data=[1, 2, 3, True]), TXT], 400, "is no FP64"),
        ([changed(NUM, data=[[1, 2], 3, 4]), TXT], 400, "nested unevenly"),
        ([without(NUM, "data"), TXT], 400, "neither 'data' nor 'binary_data_size' is given"),
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


def binary(*tensors: dict[str, Any], **more: Any) -> tuple[bytes, dict[str, str]]:
    """Return a body whose tensors follow the JSON as bytes, and its headers."""
    parts, heads = [], []
    for tensor in tensors:
        values = np.ravel(np.array(tensor["data"], object))
        if tensor["datatype"] == "BYTES":
            parts.append(write_tensor([SENTINEL if value is None else value for value in values], "BYTES"))
        else:
            parts.append(write_tensor(values.astype(float), tensor["datatype"]))
        heads.append(without(tensor, "data") | {"parameters": {"binary_data_size": len(parts[-1])}})
    head = json.dumps({"inputs": heads, **more}).encode()
    return b"".join((head, *parts)), {"Inference-Header-Content-Length": str(len(head))}


def test_tensors_as_bytes_answer_as_json(server: Server) -> None:
    txt = changed(TXT, data=["Dream", "Biscoe"])
    wanted = server.ask("POST", INFER, {"inputs": [NUM, txt]})[1]["outputs"]
    body, headers = binary(NUM, txt)
    status, answer = server.ask("POST", INFER, body, headers=headers | {"Content-Type": "application/octet-stream"})
    assert status == 200 and answer["outputs"] == wanted
    for more in (
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": name, "parameters": {"binary_data": True}} for name in ("prediction", "probability")]},
    ):
        body, headers = binary(NUM, txt, id="q", **more)
        raw, said = ask_raw(server, body, headers)
        head = json.loads(raw[: int(said["inference-header-content-length"])])
        rest = raw[int(said["inference-header-content-length"]) :]
        assert head["id"] == "q"
        for output, known in zip(head["outputs"], wanted, strict=True):
            size = output["parameters"]["binary_data_size"]
            values = read_tensor(rest[:size], output["datatype"], output["shape"])
            rest = rest[size:]
            assert list(values) == known["data"]
        assert rest == b""


def test_one_output_may_come_as_bytes_and_one_as_json(server: Server) -> None:
    wanted = [{"name": "prediction", "parameters": {"binary_data": False}}, {"name": "probability"}]
    body, headers = binary(
        NUM, changed(TXT, data=["Dream", "x"]), outputs=wanted, parameters={"binary_data_output": True}
    )
    raw, said = ask_raw(server, body, headers)
    head = json.loads(raw[: int(said["inference-header-content-length"])])
    assert [sorted(output) for output in head["outputs"]] == [
        ["data", "datatype", "name", "shape"],
        ["datatype", "name", "parameters", "shape"],
    ]


def ask_raw(server: Server, body: bytes, headers: dict[str, str]) -> tuple[bytes, Any]:
    status = server.status()
    assert status is not None
    url = f"http://127.0.0.1:{status.port}{INFER}"
    answer = httpx.post(url, content=body, headers=headers | {"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200, answer.text
    return answer.content, answer.headers


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda body, headers: (body, {"Inference-Header-Content-Length": "x"}), "a number is wanted"),
        (lambda body, headers: (body, {"Inference-Header-Content-Length": "99999999"}), "the body has"),
        (lambda body, headers: (body, {"Inference-Header-Content-Length": "0"}), "not valid JSON"),
        (lambda body, headers: (body + b"x", headers), "1 bytes follow the last tensor"),
        (lambda body, headers: (body[:-1], headers), "bytes are left behind the JSON"),
    ],
)
def test_bytes_that_do_not_fit_their_header_are_400(server: Server, change: Any, said: str) -> None:
    body, headers = change(*binary(NUM, changed(TXT, data=["Dream", "x"])))
    status, answer = server.ask("POST", INFER, body, headers=headers)
    assert status == 400 and said in answer["error"], answer


def test_statistics_and_index_tell_of_the_model(server: Server) -> None:
    before = server.ask("GET", "/v2/models/diagnosis/stats")[1]["model_stats"][0]
    server.predict([ROW, ROW])
    server.ask("POST", INFER, {"inputs": []})
    after = server.ask("GET", "/v2/models/stats")[1]["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 2
    assert after["execution_count"] - before["execution_count"] == 1
    for outcome in ("success", "fail"):
        one, other = (found["inference_stats"][outcome] for found in (before, after))
        assert other["count"] - one["count"] == 1 and other["ns"] > one["ns"]
    assert server.ask("POST", "/v2/repository/index", {}) == (
        200,
        [{"name": "diagnosis", "version": "Net@1", "state": "READY", "reason": ""}],
    )
