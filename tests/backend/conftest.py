"""Run folders as a client would write them, and real small bundles."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.paths import Home, RunFolder, new_run_id
from lepton_jupyter.formats.bundle import CARD, GRAPH, SCHEMA, encode, write_bundle
from lepton_jupyter.formats.records import Card, RunRecord
from lepton_jupyter.formats.schema import Column, Schema
from lepton_jupyter.runner.request import prepare_run

from .bench import bench as bench  # a fixture


def cells(*sources: str) -> dict[str, Any]:
    """Return a notebook of these code cells."""
    made = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": text, "outputs": [], "execution_count": None}
        for i, text in enumerate(sources)
    ]
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": made}


def write_small_bundle(folder: Path, *, model: str, run_id: str, slope: float = 1.0, **card: Any) -> None:
    """Write a whole bundle: two numbers in, the probability of 'yes' out."""
    schema = Schema(
        columns=(Column(name="a", kind="number"), Column(name="b", kind="number")),
        targets=("y",),
        task="binary",
        classes=("no", "yes"),
        positive="yes",
        dropped=("y",),
        example={"a": 1.0, "b": 2.0},
    )
    nodes = [
        helper.make_node("Cast", ["num"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["probability"], axis=1),
    ]
    weights = numpy_helper.from_array(np.array([[0.0, slope], [0.0, slope]], dtype=np.float32), "w")
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("num", TensorProto.DOUBLE, ["N", 2])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N", 2])],
        [weights],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    said = Card(
        model=model, run_id=run_id, framework="torch", created_at=time.time(), **{"is_deployable": True, **card}
    )
    onnx.checker.check_model(content)
    files = {GRAPH: content.SerializeToString(), SCHEMA: encode(schema), CARD: encode(said)}
    write_bundle(folder, files)


@pytest.fixture(scope="session")
def mlflow_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow file, made once: making one takes longer than most of these tests."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    make = "import sys; from mlflow.tracking import MlflowClient; MlflowClient(sys.argv[1]).search_experiments()"
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    argv = [sys.executable, "-c", make, f"sqlite:///{path}"]
    subprocess.run(argv, check=True, capture_output=True, env=environment)
    return path


@pytest.fixture
def home(home: Home, mlflow_tables: Path) -> Home:
    """A home in which MLflow has its tables."""
    shutil.copyfile(mlflow_tables, home.mlflow_db)
    return home


@pytest.fixture
def prepare(home: Home, tmp_path: Path) -> Callable[..., RunFolder]:
    """Write a run's folder: ``prepare("print(1)", kind="notebook")``."""

    def write(*sources: str, environment: dict[str, str] | None = None, home: Home = home, **record: Any) -> RunFolder:
        asked = RunRecord(
            **{
                "run_id": new_run_id(),
                "kind": "notebook",
                "title": "test",
                "created_at": time.time(),
                "python": sys.executable,
                "cwd": str(tmp_path),
                **record,
            }
        )
        said = {**os.environ, **(environment or {})}
        return prepare_run(home, asked, notebook=cells(*sources), captured=None, environment=said)

    return write


@pytest.fixture
def saved(home: Home, prepare: Callable[..., RunFolder]) -> Callable[..., str]:
    """Write the folder of a run of kind ``save`` with its bundle, and return its id."""

    def write(model: str = "Net", *, slope: float = 1.0, **card: Any) -> str:
        folder = prepare(kind="save", model=model, title=model)
        write_small_bundle(folder.bundle, model=model, run_id=folder.run_id, slope=slope, **card)
        return folder.run_id

    return write


@pytest.fixture
def judge(home: Home, prepare: Callable[..., RunFolder]) -> Callable[..., Any]:
    """Let a version be evaluated: a real run whose one cell says what it found."""

    def run(client: Client, version: str, *, verdict: str = "PASS", auc: float = 0.97) -> str:
        found = json.dumps({"verdict": verdict, "metrics": {"roc_auc": auc}})
        write = (
            "import json, os, time\n"
            f"event = {{'at': time.time(), 'kind': 'result', **json.loads('{found}')}}\n"
            "open(os.environ['LEPTON_RUN'] + '/events.kernel.jsonl', 'a').write(json.dumps(event) + '\\n')"
        )
        folder = prepare(write, kind="evaluate", model_version=version, dataset="wdbc@1:test")
        client.submit(folder.run_id)
        last = list(client.events(folder.run_id))[-1]
        assert last["run"]["state"] == "completed", last
        return folder.run_id

    return run
