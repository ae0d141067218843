"""A real endpoint process whose model takes image files."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from lepton_jupyter.formats.bundle import SCHEMA, encode
from lepton_jupyter.formats.pixels import decode
from lepton_jupyter.formats.requestlog import LOGGED_PIXELS, read_segment, segments
from lepton_jupyter.formats.schema import ImageInput, Schema
from tests.pictures import encoded, png_of_size
from tests.serving.graphs import ROW, TOKEN, Server, _model, make_bundle

pytestmark = pytest.mark.slow

SCHEMA_IMAGE = Schema(
    columns=(),
    targets=("class",),
    task="multiclass",
    classes=("blue", "green", "red"),
    id_column="path",
    dropped=("path", "class", "sha256"),
    example={"image": base64.b64encode(encoded(Image.new("L", (1, 1), 255))).decode()},
    tensor_shape=(3, 12, 16),
    image=ImageInput(height=12, width=16, channels=3),
)
RED, BLUE = (encoded(Image.new("RGB", (40, 30), colour)) for colour in ((250, 10, 10), (10, 10, 250)))
PHOTO = encoded(Image.new("RGB", (700, 500), (20, 240, 20)), "JPEG")
FORM = {"image/png": RED, "image/jpeg": PHOTO}


def graph_of_images() -> bytes:
    """Return a graph of `tensor` uint8 [N, 3, 12, 16]: mean blue, green and red, then softmax."""
    nodes = [
        helper.make_node("Cast", ["tensor"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "full"], ["shares"]),
        helper.make_node("ReduceMean", ["shares", "axes"], ["means"], keepdims=0),
        helper.make_node("Gather", ["means", "order"], ["ordered"], axis=1),
        helper.make_node("Mul", ["ordered", "ten"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probability"], axis=1),
    ]
    constants = {
        "full": np.array(255, np.float32),
        "ten": np.array(10, np.float32),
        "axes": np.array([2, 3], np.int64),
        "order": np.array([2, 1, 0], np.int64),
    }
    inputs: dict[str, tuple[int, list[Any]]] = {"tensor": (TensorProto.UINT8, [None, 3, 12, 16])}
    return _model(nodes, inputs=inputs, output="probability", constants=constants)


def of_any_size(content: bytes) -> bytes:
    """Return a graph that takes images of any size."""
    import onnx

    model = onnx.load_from_string(content)
    for size in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        size.Clear()
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serving(tmp_path_factory.mktemp("pictures"))


def serving(root: Path) -> Iterator[Server]:
    """An endpoint of a model of images."""
    made = Server(root)
    made.configure(make_bundle(root / "bundle", SCHEMA_IMAGE, content=graph_of_images()))
    made.start()
    made.wait()
    yield made
    assert made.stop() == 0


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def send(server: Server, body: bytes, kind: str, path: str = "/predict", **headers: str) -> tuple[int, Any]:
    status = server.status()
    assert status is not None
    line = HTTPConnection("127.0.0.1", status.port, timeout=30)
    line.request("POST", path, body, {"Authorization": f"Bearer {TOKEN}", "Content-Type": kind, **headers})
    answer = line.getresponse()
    found = answer.status, answer.read()
    line.close()
    return found[0], json.loads(found[1]) if found[1].startswith(b"{") else found[1]


@pytest.mark.parametrize("path", ["/predict", "/invocations"])
def test_a_body_that_is_a_file_is_one_row(server: Server, path: str) -> None:
    for kind, content, label in (("image/png", RED, "red"), ("image/jpeg", PHOTO, "green")):
        status, answer = send(server, content, kind, path)
        assert status == 200, answer
        (row,) = answer["predictions"]
        assert row["prediction"] == label
        assert set(row) == {"prediction", "probability_blue", "probability_green", "probability_red"}


@pytest.mark.parametrize(
    "body",
    [
        [{"image": b64(RED)}, {"image": b64(BLUE)}],
        {"rows": [{"image": b64(RED), "class": "x", "sha256": "y"}, {"image": b64(BLUE)}]},
        {"columns": {"image": [b64(RED), b64(BLUE)]}},
        [b64(RED), "data:image/png;base64," + b64(BLUE)],
        decode(RED, height=12, width=16, channels=3)[None].tolist()
        + decode(BLUE, height=12, width=16, channels=3)[None].tolist(),
    ],
    ids=["list", "rows", "columns", "texts", "pixels"],
)
def test_every_form_of_rows_gets_the_same_answer(server: Server, body: Any) -> None:
    answers = server.predict(body)["predictions"]
    assert [row["prediction"] for row in answers] == ["red", "blue"]
    assert answers[0]["probability_red"] == pytest.approx(1 / (1 + 2 * np.exp(-2400 / 255)), abs=1e-5)


def test_one_object_alone_is_a_row_and_none_is_none(server: Server) -> None:
    assert server.predict({"image": b64(PHOTO)})["predictions"][0]["prediction"] == "green"
    assert server.predict([])["predictions"] == []
    assert server.predict({"columns": {"image": []}})["predictions"] == []


def test_names_come_back_and_order_is_kept(server: Server) -> None:
    rows = [{"image": b64(RED if place % 3 else BLUE), "path": f"{place}.png"} for place in range(100)]
    answers = server.predict({"rows": rows})["predictions"]
    assert [row["path"] for row in answers] == [row["path"] for row in rows]
    assert [row["prediction"] for row in answers] == ["red" if place % 3 else "blue" for place in range(100)]
    columns = {"image": [b64(RED)], "path": ["a"]}
    assert server.predict({"columns": columns})["predictions"][0]["path"] == "a"


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [b64(RED)]},
        {"instances": [{"image": b64(RED)}]},
        {"inputs": {"image": [b64(RED)]}},
        {"inputs": [b64(RED)]},
        {"dataframe_records": [{"image": b64(RED)}]},
        {"dataframe_split": {"columns": ["image"], "data": [[b64(RED)]]}},
    ],
)
def test_mlflows_forms_hold_base64(server: Server, body: Any) -> None:
    status, answer = server.ask("POST", "/invocations", body)
    assert status == 200 and [row["prediction"] for row in answer["predictions"]] == ["red"], answer


def test_the_open_inference_protocol_takes_files_and_pixels(server: Server) -> None:
    url = "/v2/models/Net/infer"
    _, about = server.ask("GET", "/v2/models/Net")
    assert about["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert about["image"] == {"height": 12, "width": 16, "channels": 3, "resize": "bilinear"}
    for shape in ([2], [2, 1]):
        tensor = {"name": "image", "datatype": "BYTES", "shape": shape, "data": [b64(RED), b64(BLUE)]}
        status, answer = server.ask("POST", url, {"inputs": [tensor]})
        assert status == 200 and answer["outputs"][0]["data"] == ["red", "blue"], answer
    raw = b"".join(struct.pack("<I", len(content)) + content for content in (BLUE, PHOTO))
    tensor = {"name": "image", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    status, answer = send(server, head + raw, "application/octet-stream", url, **length)
    assert status == 200 and answer["outputs"][0]["data"] == ["blue", "green"], answer
    pixels = decode(RED, height=12, width=16, channels=3)
    tensor = {"name": "tensor", "datatype": "UINT8", "shape": [1, 3, 12, 16], "data": pixels.ravel().tolist()}
    status, answer = server.ask("POST", url, {"inputs": [tensor]})
    assert status == 200 and answer["outputs"][0]["data"] == ["red"], answer


CUT = RED[:60]


@pytest.mark.parametrize(
    ("body", "row", "column", "said"),
    [
        ([{"image": b64(RED)}, {"image": b64(CUT)}], 1, "image", "cannot be decoded"),
        ([{"image": b64(b"hello")}], 0, "image", "no JPEG or PNG"),
        ([{"image": "%%%"}], 0, "image", "no base64"),
        ([{"image": "ü"}], 0, "image", "no base64"),
        ([{"image": None}], 0, "image", "null is given"),
        ([{"image": 5}], 0, "image", "5 (number) is given"),
        ([{"image": ""}], 0, "image", "empty"),
        ([{"imag": b64(RED)}], 0, "imag", "no such column"),
        ([{"path": "x"}], 0, "image", "column is missing"),
        ([{"image": b64(RED)}, 3], 1, None, "3 (number) is given"),
        ({"columns": {"image": b64(RED)}}, None, "image", "a column is a list"),
        ({"columns": {"path": ["a"]}}, None, "image", "column is missing"),
        ({"columns": {"image": [b64(RED)], "path": ["a", "b"]}}, None, "path", "2 values are given"),
        ({"columns": {"image": [b64(RED)], "age": [1]}}, None, "age", "no such column"),
        ([[[[256] * 16] * 12] * 3], 0, None, "no whole number from 0 to 255"),
        ([[[[0.5] * 16] * 12] * 3], 0, None, "no whole number from 0 to 255"),
        ([[1, 2]], None, None, "[N, 3, 12, 16] is wanted"),
        ("text!", 0, "image", "no base64"),
        (7, 0, None, "7 (number) is given"),
    ],
)
def test_rows_that_are_no_images_are_named(
    server: Server, body: Any, row: int | None, column: str | None, said: str
) -> None:
    status, answer = server.ask("POST", "/predict", body)
    assert status == 422, answer
    fault = answer["faults"][0]
    assert (fault.get("row"), fault.get("column")) == (row, column)
    assert said in fault["message"] and answer["error"]["hint"]


@pytest.mark.parametrize(
    ("kind", "content", "status", "said"),
    [
        ("image/png", CUT, 400, "cannot be decoded"),
        ("image/jpeg", b"hello", 400, "no JPEG or PNG"),
        ("image/png", b"", 400, "empty"),
        ("image/png", png_of_size(30_000, 30_000), 400, "million"),
        ("image/gif", encoded(Image.new("L", (3, 3)), "GIF"), 415, "image/gif"),
        ("image/png", encoded(Image.new("L", (3, 3)), "GIF"), 400, "no JPEG or PNG"),
        ("text/csv", b"a,b\n1,2\n", 415, "images, which CSV has none of"),
        ("multipart/form-data; boundary=x", b"--x--", 415, "multipart/form-data"),
    ],
)
def test_bodies_that_are_no_images_are_refused(
    server: Server, kind: str, content: bytes, status: int, said: str
) -> None:
    found, answer = send(server, content, kind)
    assert found == status and said in answer["error"]["message"], answer


@pytest.mark.parametrize(
    ("tensors", "status", "said"),
    [
        ([{"name": "picture", "datatype": "BYTES", "shape": [0], "data": []}], 400, "'image' alone"),
        ([{"name": "image", "datatype": "FP32", "shape": [1], "data": [1.0]}], 400, "BYTES [N] is wanted"),
        ([{"name": "image", "datatype": "BYTES", "shape": [1, 2], "data": ["a", "b"]}], 400, "BYTES [N] is wanted"),
        ([{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["aGk="]}], 422, "no JPEG or PNG"),
        ([{"name": "image", "datatype": "BYTES", "shape": [1], "data": [None]}], 422, "null is given"),
        ([{"name": "tensor", "datatype": "UINT8", "shape": [1, 2], "data": [1, 2]}], 400, "shape [1, 2]"),
        ([], 400, "none"),
    ],
)
def test_tensors_that_are_no_images_are_refused(server: Server, tensors: Any, status: int, said: str) -> None:
    found, answer = server.ask("POST", "/v2/models/Net/infer", {"inputs": tensors})
    assert found == status and said in answer["error"], answer


def test_a_model_of_columns_takes_no_files(new_server: Callable[[], Server], tmp_path: Path) -> None:
    server = new_server()
    server.configure(make_bundle(tmp_path / "columns"))
    server.start()
    server.wait()
    status, answer = send(server, RED, "image/png")
    assert status == 415 and "takes no image files" in answer["error"]["message"]
    # the short way is there again after a release of images, and the other way round
    server.configure(make_bundle(tmp_path / "images", SCHEMA_IMAGE, content=graph_of_images()), release=2)
    server.wait(release=2)
    assert send(server, RED, "image/png")[0] == 200
    server.configure(make_bundle(tmp_path / "columns2"), release=3)
    server.wait(release=3)
    assert server.predict([ROW])["predictions"][0]["prediction"] == "yes"


def test_the_document_and_the_example_are_of_images(server: Server) -> None:
    _, about = server.ask("GET", "/")
    assert about["image"]["width"] == 16 and len(server.predict(about["example"])["predictions"]) == 1
    _, document = server.ask("GET", "/openapi.json")
    bodies = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(bodies) == {"application/json", "image/jpeg", "image/png"}
    row = document["components"]["schemas"]["Row"]
    assert row["required"] == ["image"] and row["properties"]["image"]["contentEncoding"] == "base64"


def test_the_log_holds_hashes_and_small_pixels(server: Server, eventually: Callable[..., Any]) -> None:
    assert np.prod(SCHEMA_IMAGE.tensor_shape or ()) <= LOGGED_PIXELS
    body = json.dumps([{"image": b64(RED)}, {"image": b64(PHOTO)}]).encode()
    send(server, body, "application/json", **{"X-Request-Id": "logged-1"})
    send(server, BLUE, "image/png", **{"X-Request-Id": "logged-2"})

    def logged(name: str) -> Any:
        found = [r for path in segments(server.folder.requests) for _, r in read_segment(path)]
        return [record for record in found if record.request_id == name]

    (both,) = eventually(lambda: logged("logged-1"), timeout_s=5)
    assert both.images == [hashlib.sha256(content).hexdigest() for content in (RED, PHOTO)]
    kept = np.frombuffer(both.tensor, np.uint8).reshape(2, 3, 12, 16)
    assert np.array_equal(kept[1], decode(PHOTO, height=12, width=16, channels=3))
    (one,) = eventually(lambda: logged("logged-2"), timeout_s=5)
    assert one.images == [hashlib.sha256(BLUE).hexdigest()] and one.prediction == ["blue"]


def test_of_large_images_the_log_holds_hashes_only(
    new_server: Callable[[], Server], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    large = msgspec.structs.replace(
        SCHEMA_IMAGE, image=ImageInput(height=120, width=160, channels=3), tensor_shape=(3, 120, 160)
    )
    server = new_server()
    bundle = make_bundle(tmp_path / "bundle", large, content=of_any_size(graph_of_images()))
    assert bundle.read(SCHEMA) == encode(large)
    server.configure(bundle)
    server.start()
    server.wait()
    assert send(server, RED, "image/png")[1]["predictions"][0]["prediction"] == "red"

    def logged() -> Any:
        return [r for path in segments(server.folder.requests) for _, r in read_segment(path)]

    (record,) = eventually(logged, timeout_s=5)
    assert record.images == [hashlib.sha256(RED).hexdigest()] and record.tensor == b"" and record.n_rows == 1
