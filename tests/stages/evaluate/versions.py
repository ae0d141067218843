"""Real datasets in a real store, and real bundles: a linear model of scikit-learn written as an ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import StandardScaler

from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.bundle import CARD, GRAPH, PREDICTIONS, SCHEMA, Bundle, encode, write_bundle
from lepton_jupyter.formats.records import Card
from lepton_jupyter.stages.data.ingest import add
from lepton_jupyter.stages.data.spec import Data
from lepton_jupyter.stages.data.store import Dataset, Store


class Told:
    """A session that keeps what it is told."""

    def __init__(self, folder: Path, run_id: str = "0123456789ab") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.run_id = folder, run_id
        self.metrics: dict[str, float] = {}
        self.notes: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.steps: list[int] = []

    def log(self, *, step: int | None = None, **metrics: float) -> None:
        self.metrics |= metrics

    def note(self, key: str, value: Any) -> None:
        self.notes[key] = value

    def result(self, **summary: Any) -> None:
        assert (self.folder / "result.json").exists()  # whoever hears of it can read it
        self.summary = summary

    def progress(self, done: int, total: int, unit: str) -> None:
        self.steps.append(done)

    devices: tuple[str, ...] = ()

    def telemetry(self, **values: float) -> None:
        pass

    def should_stop(self) -> bool:
        return False


def table(name: str) -> tuple[pl.DataFrame, str]:
    """Return a dataset of scikit-learn as a table, and its target's name."""
    loaded = {"wdbc": load_breast_cancer, "iris": load_iris, "diabetes": load_diabetes}[name]()
    names = [text.replace(" (cm)", "").replace(" ", "_") for text in loaded.feature_names]
    frame = pl.DataFrame(loaded.data, schema=names)
    labels = getattr(loaded, "target_names", None)
    target = loaded.target.astype(float) if labels is None else [str(labels[code]) for code in loaded.target]
    return frame.with_columns(pl.Series("target", target)), "target"


def make_dataset(home: Home, name: str, frame: pl.DataFrame | None = None, **flags: Any) -> Dataset:
    """Add a dataset to the home's store and open it."""
    value, target = table(name) if frame is None else (frame, "target")
    record, _ = add(home, Data(name=name, source="frame", target=(target,), **flags), value)
    return Store(home).open(f"{record.name}@{record.version}")


def make_bundle(
    folder: Path, dataset: Dataset, *, model: str = "Linear", n_columns: int | None = None, C: float = 1.0, **card: Any
) -> Bundle:
    """Fit a linear model on the training rows, on their first columns only if told so, and write it as a bundle."""
    num, y = dataset.packed("train").num, dataset.targets("train")
    kept = num.shape[1] if n_columns is None else n_columns
    scaler = StandardScaler().fit(num[:, :kept])
    fitted = LinearRegression() if dataset.schema.task == "regression" else LogisticRegression(C=C)
    fitted.fit(scaler.transform(num[:, :kept]), y)
    coefficients, intercept = np.atleast_2d(fitted.coef_), np.atleast_1d(fitted.intercept_)
    if dataset.schema.task == "binary":
        coefficients, intercept = np.vstack([0 * coefficients, coefficients]), np.r_[0.0, intercept]
    weights = np.zeros((num.shape[1], len(coefficients)))
    weights[:kept] = (coefficients / scaler.scale_).T
    bias = intercept - scaler.mean_ @ weights[:kept]
    fields: dict[str, Any] = {
        "trained_on": dataset.ref,
        "trained_splits": ("train", "validation"),
        "is_deployable": True,
    }
    record = Card(model=model, run_id=folder.name, framework="sklearn", created_at=0.0, **{**fields, **card})
    graph = _graph(weights, bias, is_classifier=dataset.schema.task != "regression")
    files = {SCHEMA: encode(dataset.schema), CARD: encode(record)}
    return write_bundle(folder, files | ({GRAPH: graph} if record.is_deployable else {}))


def make_stored(folder: Path, dataset: Dataset, stored: pl.DataFrame, **card: Any) -> Bundle:
    """Write the bundle of a version that could not be exported: no graph, its predictions as a table."""
    record = Card(
        model="Branchy", run_id=folder.name, framework="torch", created_at=0.0, is_deployable=False,
        why_not="forward depends on data", trained_on=dataset.ref, trained_splits=("train", "validation"), **card,
    )  # fmt: skip
    stored.write_parquet(folder.with_suffix(".parquet"))
    files = {SCHEMA: encode(dataset.schema), CARD: encode(record)}
    return write_bundle(folder, files | {PREDICTIONS: folder.with_suffix(".parquet").read_bytes()})


def _graph(weights: np.ndarray, bias: np.ndarray, *, is_classifier: bool) -> bytes:
    output = "probability" if is_classifier else "prediction"
    nodes = [helper.make_node("MatMul", ["num", "weights"], ["product"])]
    nodes.append(helper.make_node("Add", ["product", "bias"], ["logits" if is_classifier else output]))
    kind = TensorProto.DOUBLE
    if is_classifier:
        nodes.append(helper.make_node("Softmax", ["logits"], ["shares"], axis=1))
        nodes.append(helper.make_node("Cast", ["shares"], [output], to=TensorProto.FLOAT))
        kind = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "linear",
        [helper.make_tensor_value_info("num", TensorProto.DOUBLE, [None, len(weights)])],
        [helper.make_tensor_value_info(output, kind, [None, len(bias)])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()
