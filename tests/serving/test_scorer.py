"""One graph, one table, whoever asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec.structs import replace

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import CARD, GRAPH, SCHEMA, encode, open_bundle, write_bundle
from lepton_jupyter.formats.packing import pack_rows, pack_tensor
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.serving.scorer import Scorer, decide
from tests.serving.graphs import (
    ROW,
    SCHEMA_BINARY,
    SCHEMA_MULTI,
    SCHEMA_REGRESSION,
    card,
    expected_logit,
    graph,
    graph_of_tensors,
    make_bundle,
)

ROWS = [ROW, {**ROW, "age": None}, {**ROW, "island": None}, {**ROW, "island": "unseen", "children": None}]


def test_a_binary_table_holds_label_and_probabilities_of_the_graph(tmp_path: Path) -> None:
    scorer = Scorer(make_bundle(tmp_path / "b"))
    table = scorer.table(scorer.score(pack_rows(scorer.schema, ROWS)))
    assert list(table) == ["prediction", "probability_no", "probability_yes"]
    wanted = [1 / (1 + np.exp(-expected_logit(row["age"], row["children"], row["island"]))) for row in ROWS]
    np.testing.assert_allclose(table["probability_yes"], wanted, atol=1e-6)
    np.testing.assert_allclose(np.add(table["probability_yes"], table["probability_no"]), 1, atol=1e-6)
    assert table["prediction"] == ["yes" if p >= 0.5 else "no" for p in wanted]


def test_the_positive_class_is_taken_from_one_half_on_wherever_it_stands() -> None:
    half = np.array([[0.5, 0.5], [0.51, 0.49], [0.49, 0.51]], np.float32)
    assert decide(SCHEMA_BINARY, half).tolist() == [1, 0, 1]
    assert decide(replace(SCHEMA_BINARY, positive="no"), half).tolist() == [0, 0, 1]


def test_labels_come_back_as_their_kind(tmp_path: Path) -> None:
    scorer = Scorer(make_bundle(tmp_path / "b", SCHEMA_MULTI))
    table = scorer.table(scorer.score(pack_rows(scorer.schema, ROWS)), ids=["a", "b", "c", "d"])
    assert list(table) == ["patient", "prediction", "probability_1", "probability_2", "probability_3"]
    assert {type(label) for label in table["prediction"]} == {int}
    booleans = replace(SCHEMA_BINARY, classes=("false", "true"), positive="true", class_kind="boolean")
    scorer = Scorer(make_bundle(tmp_path / "c", booleans))
    assert scorer.table(scorer.score(pack_rows(booleans, [ROW])))["prediction"] == [True]


def test_several_targets_have_a_column_each(tmp_path: Path) -> None:
    scorer = Scorer(make_bundle(tmp_path / "b", SCHEMA_REGRESSION))
    outputs = scorer.score(pack_rows(scorer.schema, ROWS))
    assert outputs.prediction.dtype == np.float64 and outputs.prediction.shape == (4, 2)
    table = scorer.table(outputs)
    assert list(table) == ["prediction_low", "prediction_high"]
    assert table["prediction_low"][0] == pytest.approx(expected_logit(50, 2, "Dream"), abs=1e-6)


@pytest.mark.parametrize("schema", [SCHEMA_BINARY, SCHEMA_MULTI, SCHEMA_REGRESSION])
def test_no_rows_give_an_empty_table_with_all_columns(tmp_path: Path, schema: Schema) -> None:
    scorer = Scorer(make_bundle(tmp_path / "b", schema))
    full, empty = (scorer.table(scorer.score(pack_rows(schema, rows))) for rows in (ROWS, []))
    assert list(empty) == list(full)
    assert all(column == [] for column in empty.values())


def test_rows_in_chunks_are_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(make_bundle(tmp_path / "b"))
    packed = pack_rows(scorer.schema, [{**ROW, "age": age} for age in range(50)])
    whole = scorer.score(packed)
    monkeypatch.setattr(scorer, "chunk_rows", 7)
    parts = scorer.score(packed)
    np.testing.assert_allclose(whole.probability, parts.probability, atol=1e-7)  # type: ignore[arg-type]


def test_a_model_of_tensors_takes_tensors(tmp_path: Path) -> None:
    schema = Schema(columns=(), targets=("y",), task="regression", tensor_shape=(2, 2))
    scorer = Scorer(make_bundle(tmp_path / "b", schema, content=graph_of_tensors()))
    scorer.warm()
    assert scorer.table(scorer.score(pack_tensor(schema, [[[1, 2], [3, 4]]]))) == {"prediction": [10.0]}


def test_a_changed_graph_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    (bundle.root / GRAPH).write_bytes(graph(SCHEMA_BINARY, shift=1.0))
    with pytest.raises(LeptonError, match="is not what its manifest says"):
        Scorer(open_bundle(bundle.root))


def test_a_version_without_a_graph_says_why(tmp_path: Path) -> None:
    why = card(is_deployable=False, why_not="it sorts the batch")
    bundle = write_bundle(tmp_path / "b", {SCHEMA: encode(SCHEMA_BINARY), CARD: encode(why)})
    with pytest.raises(LeptonError, match="Net of run abc123 has no graph: it sorts the batch"):
        Scorer(bundle)


def test_bytes_that_are_no_graph_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(LeptonError, match="cannot be loaded"):
        Scorer(make_bundle(tmp_path / "b", content=b"not a graph"))


@pytest.mark.parametrize("location", ["secret.bin", "../secret.bin", "/etc/hostname"])
def test_a_graph_cannot_read_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str) -> None:
    """Bytes do not stop it: the runtime would look in the working directory and in the folder it is given."""
    (tmp_path / "secret.bin").write_bytes(np.zeros(2).tobytes())
    bundle_folder = tmp_path / "bundle"
    bundle_folder.mkdir()
    (bundle_folder / "secret.bin").hardlink_to(tmp_path / "secret.bin")
    monkeypatch.chdir(tmp_path)
    model = onnx.load_model_from_string(graph(SCHEMA_BINARY))
    fill = next(tensor for tensor in model.graph.initializer if tensor.name == "fill")
    fill.ClearField("raw_data")
    fill.data_location = onnx.TensorProto.EXTERNAL
    fill.external_data.add(key="location", value=location)
    with pytest.raises(LeptonError, match=r"cannot be loaded: .*External data path"):
        Scorer(make_bundle(bundle_folder, content=model.SerializeToString()))


def test_the_endpoint_loads_neither_frameworks_nor_tables(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    code = f"""
import sys
from pathlib import Path
import lepton_jupyter.serving.__main__, lepton_jupyter.serving.endpoint
from lepton_jupyter.formats.bundle import open_bundle
from lepton_jupyter.serving.scorer import Scorer
Scorer(open_bundle(Path({str(bundle.root)!r}))).warm()
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "onnxruntime" in said
    never = {"torch", "mlflow", "polars", "pyarrow", "pandas", "sklearn", "onnx", "starlette", "pydantic", "IPython"}
    assert not never & set(said)


def test_the_runtime_calls_nobody_and_leaves_nothing_in_a_home(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    (tmp_path / "home").mkdir()
    code = f"""
from pathlib import Path
from lepton_jupyter.formats.bundle import open_bundle
from lepton_jupyter.serving.scorer import Scorer
Scorer(open_bundle(Path({str(bundle.root)!r}))).warm()
"""
    environment = {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert list((tmp_path / "home").rglob("*")) == []
