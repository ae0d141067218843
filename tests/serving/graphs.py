"""Small bundles made by hand: a graph of a few nodes, and a server process on one of them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.paths import EndpointFolder
from lepton_jupyter.core.processes import spawn
from lepton_jupyter.formats.bundle import CARD, GRAPH, SCHEMA, Bundle, encode, write_bundle
from lepton_jupyter.formats.endpoint import EndpointConfig, EndpointStatus
from lepton_jupyter.formats.records import Card
from lepton_jupyter.formats.schema import SENTINEL, Column, Schema

TOKEN = "a-token-for-tests"

SCHEMA_BINARY = Schema(
    columns=(
        Column(name="age", kind="number"),
        Column(name="island", kind="string", categories=("Biscoe", "Dream")),
        Column(name="children", kind="integer"),
    ),
    targets=("sick",),
    task="binary",
    classes=("no", "yes"),
    positive="yes",
    id_column="patient",
    dropped=("remark",),
    example={"age": 40.0, "island": "Dream", "children": 1},
)
SCHEMA_MULTI = msgspec.structs.replace(
    SCHEMA_BINARY, task="multiclass", classes=("1", "2", "3"), class_kind="integer", positive=None
)
SCHEMA_REGRESSION = msgspec.structs.replace(
    SCHEMA_BINARY, task="regression", classes=(), positive=None, targets=("low", "high")
)
ROW: dict[str, Any] = {"age": 50.0, "island": "Dream", "children": 2}

FILL = np.array([40.0, 1.0])
WEIGHT = np.array([[0.04], [0.5], [0.3], [-0.3], [-2.0], [1.5]])  # age, children, Biscoe, Dream, unseen, missing


def expected_logit(age: float | None, children: float | None, island: str | None) -> float:
    """What the graph below computes for one row."""
    filled = [FILL[0] if age is None else age, FILL[1] if children is None else children]
    place = 3 if island is None else {"Biscoe": 0, "Dream": 1}.get(island, 2)
    return float(np.dot(filled, WEIGHT[:2, 0]) + WEIGHT[2 + place, 0] - 2.5)


def graph(schema: Schema, *, shift: float = 0.0) -> bytes:
    """Return a graph of `num` [N, 2] and `txt` [N, 1]: fill, one-hot, one linear layer; sigmoid, softmax or nothing."""
    n_out = {"binary": 1, "multiclass": 3, "regression": 2}[str(schema.task)]
    scale = np.array([[1.0, 0.5, -1.0][:n_out]])
    constants = {
        "fill": FILL,
        "depth": np.array(4, np.int64),
        "onehot_values": np.array([0.0, 1.0], np.float32),
        "weight": WEIGHT @ scale,
        "bias": np.full(n_out, -2.5 + shift) * scale[0],
        "axis": np.array([1], np.int64),
        "one": np.array(1.0, np.float32),
    }
    nodes = [
        helper.make_node("IsNaN", ["num"], ["holes"]),
        helper.make_node("Where", ["holes", "fill", "num"], ["filled"]),
        helper.make_node(
            "LabelEncoder",
            ["txt"],
            ["code"],
            domain="ai.onnx.ml",
            keys_strings=["Biscoe", "Dream", SENTINEL],
            values_int64s=[0, 1, 3],
            default_int64=2,
        ),
        helper.make_node("Squeeze", ["code", "axis"], ["flat"]),
        helper.make_node("OneHot", ["flat", "depth", "onehot_values"], ["place"]),
        helper.make_node("Cast", ["place"], ["onehot"], to=TensorProto.DOUBLE),
        helper.make_node("Concat", ["filled", "onehot"], ["features"], axis=1),
        helper.make_node("MatMul", ["features", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["double"]),
        helper.make_node("Cast", ["double"], ["logit"], to=TensorProto.FLOAT),
    ]
    if schema.task == "binary":
        nodes += [
            helper.make_node("Sigmoid", ["logit"], ["p"]),
            helper.make_node("Sub", ["one", "p"], ["q"]),
            helper.make_node("Concat", ["q", "p"], ["probability"], axis=1),
        ]
    elif schema.task == "multiclass":
        nodes.append(helper.make_node("Softmax", ["logit"], ["probability"], axis=1))
    else:
        nodes.append(helper.make_node("Identity", ["logit"], ["prediction"]))
    output = "prediction" if schema.task == "regression" else "probability"
    return _model(
        nodes,
        inputs={"num": (TensorProto.DOUBLE, [None, 2]), "txt": (TensorProto.STRING, [None, 1])},
        output=output,
        constants=constants,
    )


def graph_of_tensors() -> bytes:
    """Return a graph of `tensor` [N, 2, 2] whose prediction is the sum of a row."""
    nodes = [
        helper.make_node("ReduceSum", ["tensor", "axes"], ["sum"], keepdims=0),
        helper.make_node("Unsqueeze", ["sum", "one"], ["prediction"]),
    ]
    constants = {"axes": np.array([1, 2], np.int64), "one": np.array([1], np.int64)}
    inputs: dict[str, tuple[int, list[int | None]]] = {"tensor": (TensorProto.FLOAT, [None, 2, 2])}
    return _model(nodes, inputs=inputs, output="prediction", constants=constants)


def _model(
    nodes: list[Any],
    *,
    inputs: dict[str, tuple[int, list[Any]]],
    output: str,
    constants: dict[str, Any],
) -> bytes:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, None])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10).SerializeToString()


def card(*, is_deployable: bool = True, why_not: str = "") -> Card:
    """Return the card of a hand-made bundle."""
    return Card(
        model="Net", run_id="abc123", framework="torch", is_deployable=is_deployable, created_at=0.0, why_not=why_not
    )


def make_bundle(
    folder: Path, schema: Schema = SCHEMA_BINARY, *, content: bytes | None = None, shift: float = 0.0
) -> Bundle:
    """Write a bundle of this schema's graph."""
    files = {GRAPH: content or graph(schema, shift=shift), SCHEMA: encode(schema), CARD: encode(card())}
    return write_bundle(folder, files)


class Server:
    """A real endpoint process on a folder, and the HTTP to ask it."""

    def __init__(self, root: Path) -> None:
        self.folder = EndpointFolder(root / "endpoint")
        self.folder.root.mkdir()
        self.lock = root / "lock"
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, bundle: Bundle, /, **changes: Any) -> EndpointConfig:
        """Write ``endpoint.json``, as the backend does."""
        hashes = (hashlib.sha256(TOKEN.encode()).hexdigest(),)
        config = EndpointConfig(
            **{
                "name": "diagnosis",
                "release": 1,
                "model": "Net",
                "version": "Net@1",
                "bundle": str(bundle.root),
                "manifest_hash": bundle.manifest_hash,
                "port": 0,
                "token_hashes": hashes,
            }
            | changes
        )
        write_atomic(self.folder.config, encode(config))
        return config

    def start(self) -> None:
        """Start the process without waiting for it."""
        argv = [sys.executable, "-m", "lepton_jupyter.serving", str(self.folder.root), str(self.lock)]
        self.process = spawn(argv, env=os.environ, cwd=self.folder.root, log=self.folder.log)

    def status(self) -> EndpointStatus | None:
        """Return what the endpoint last said of itself."""
        try:
            return msgspec.json.decode(self.folder.status.read_bytes(), type=EndpointStatus)
        except FileNotFoundError:
            return None

    def wait(self, *, state: str = "ready", release: int = 1, timeout_s: float = 30) -> EndpointStatus:
        """Wait until the status is this one."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            status = self.status()
            if status is not None and (status.state, status.release) == (state, release):
                return status
            assert self.process is None or self.process.poll() is None, self.folder.log.read_text()
            time.sleep(0.01)
        raise AssertionError(f"{self.status()}\n{self.folder.log.read_text()}")

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = TOKEN,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Ask once; return status and answer, decoded where it is JSON. What is not bytes is sent as JSON."""
        status, answer, _ = self.ask_fully(method, path, body, token=token, headers=headers)
        return status, answer

    def ask_fully(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = TOKEN,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any, dict[str, str]]:
        """Ask once; return status, answer and headers (lower case)."""
        status = self.status()
        assert status is not None
        sent = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        is_raw = body is None or isinstance(body, bytes) or hasattr(body, "__next__")
        content = body if is_raw else json.dumps(body).encode()
        connection = HTTPConnection("127.0.0.1", status.port, timeout=60)
        try:
            connection.request(method, path, content, sent | (headers or {}))
            answer = connection.getresponse()
            raw = answer.read()
            said = {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()
        is_json = raw and said.get("content-type") == "application/json"
        return answer.status, json.loads(raw) if is_json else raw.decode(), said

    def predict(self, rows: Any) -> Any:
        """Ask for a prediction that must come."""
        status, answer = self.ask("POST", "/predict", rows)
        assert status == 200, answer
        return answer

    def stop(self) -> int | None:
        """End the process if it is there; return its exit code."""
        if self.process is None:
            return None
        self.process.terminate()
        try:
            return self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
