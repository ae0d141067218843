"""Predicting without a server gives what the endpoint gives."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from safetensors.numpy import save

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import CARD, GRAPH, PREDICTIONS, SCHEMA, WEIGHTS, Bundle, encode, write_bundle
from lepton_jupyter.formats.packing import PackingError
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.stages.deploy.scoring import LoadedModel, frame_of_rows, predict_frame, write_table
from tests.serving.graphs import (
    SCHEMA_BINARY,
    SCHEMA_MULTI,
    SCHEMA_REGRESSION,
    Server,
    card,
    graph,
    graph_of_tensors,
    make_bundle,
)

ROWS = pl.DataFrame(
    {
        "patient": ["p1", "p2", "p3"],
        "island": ["Dream", None, "never seen"],
        "children": [2, None, 0],
        "age": [50.0, None, 3.25],
        "remark": ["", None, "x"],
    }
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.stop()


@pytest.mark.slow
@pytest.mark.parametrize("schema", [SCHEMA_BINARY, SCHEMA_MULTI, SCHEMA_REGRESSION])
def test_predict_and_endpoint_give_the_same_table(served: Server, tmp_path: Path, schema: Schema) -> None:
    bundle = make_bundle(tmp_path / "served", schema)
    served.configure(bundle)
    served.start()
    served.wait()
    ours = predict_frame(bundle, ROWS)
    theirs = pl.DataFrame(served.predict({"columns": ROWS.to_dict(as_series=False)})["predictions"])
    assert_frame_equal(ours, theirs, check_exact=True)
    assert ours.columns[0] == "patient"


def test_every_kind_of_rows_gives_the_same_table(bundle: Bundle, tmp_path: Path) -> None:
    model = LoadedModel(bundle)
    wanted = predict_frame(bundle, ROWS)
    ROWS.write_csv(tmp_path / "rows.csv")
    ROWS.write_parquet(tmp_path / "rows.parquet")
    ROWS.write_ndjson(tmp_path / "rows.jsonl")
    forms: list[Any] = [
        ROWS,
        ROWS.select(reversed(ROWS.columns)),
        ROWS.to_pandas(),
        pd.DataFrame(ROWS.to_dicts()),
        ROWS.to_dicts(),
        ROWS.to_dict(as_series=False),
        tmp_path / "rows.csv",
        str(tmp_path / "rows.parquet"),
        tmp_path / "rows.jsonl",
    ]
    for form in forms:
        assert_frame_equal(model.predict(form), wanted, check_exact=True)
    assert_frame_equal(model.predict(ROWS.to_dicts()[0]), wanted.head(1), check_exact=True)


def test_ids_keep_their_type_and_order(bundle: Bundle) -> None:
    ids = pl.Series("patient", [2**62, None, 7], dtype=pl.Int64)
    assert_frame_equal(predict_frame(bundle, ROWS.with_columns(ids)).select("patient"), ids.to_frame())
    assert predict_frame(bundle, ROWS.drop("patient", "remark")).columns == [
        "prediction",
        "probability_no",
        "probability_yes",
    ]


def test_wrong_rows_are_named_by_row_and_column(bundle: Bundle) -> None:
    for rows, said in (
        (ROWS.drop("age"), "Column 'age': the column is missing"),
        (ROWS.rename({"age": "agee"}), "'agee'"),
        (ROWS.with_columns(extra=pl.lit(1)), "Column 'extra': the model knows no such column"),
        (ROWS.with_columns(age=pl.Series(["1", "2", "old"])), "Row 0, column 'age': '1' (text) is given"),
        (
            ROWS.with_columns(children=pl.Series([1.0, 2.0, 2.5])),
            "Row 2, column 'children': 2.5 (number) has a fraction",
        ),
    ):
        with pytest.raises(PackingError) as caught:
            predict_frame(bundle, rows)
        assert said in caught.value.message


def test_rows_that_are_no_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LeptonError, match=r"No file .*nowhere\.csv"):
        frame_of_rows(tmp_path / "nowhere.csv")
    with pytest.raises(LeptonError, match="cannot be"):
        frame_of_rows(7)


@pytest.mark.parametrize(
    ("name", "read"), [("a.parquet", pl.read_parquet), ("a.csv", pl.read_csv), ("a.jsonl", pl.read_ndjson)]
)
def test_a_written_table_is_read_back(bundle: Bundle, tmp_path: Path, name: str, read: Any) -> None:
    table = predict_frame(bundle, ROWS)
    write_table(table, tmp_path / name)
    assert_frame_equal(read(tmp_path / name), table, check_exact=False)


def test_a_table_that_cannot_be_written_leaves_nothing(bundle: Bundle, tmp_path: Path) -> None:
    table = predict_frame(bundle, ROWS)
    with pytest.raises(LeptonError, match=r"Known: \.parquet, \.csv, \.jsonl"):
        write_table(table, tmp_path / "a.parket")
    with pytest.raises(LeptonError, match="There is no folder"):
        write_table(table, tmp_path / "nowhere" / "a.csv")
    assert not list(tmp_path.glob("*a.*"))


def test_a_loaded_model_has_weights_and_says_where_it_comes_from(tmp_path: Path) -> None:
    weights = {"linear.weight": np.array([[2.0]], np.float32), "linear.bias": np.array([0.0], np.float32)}
    files = {GRAPH: graph(SCHEMA_BINARY), SCHEMA: encode(SCHEMA_BINARY), CARD: encode(card()), WEIGHTS: save(weights)}
    model = LoadedModel(write_bundle(tmp_path / "b", files))
    assert {name: array.tolist() for name, array in model.weights.items()} == {
        "linear.weight": [[2.0]],
        "linear.bias": [0.0],
    }
    assert model.card.run_id == "abc123" and model.schema == SCHEMA_BINARY
    assert repr(model) == "<Net of run abc123 (torch)>"
    with pytest.raises(LeptonError, match="No predictions are stored"):
        _ = model.predictions


def test_a_version_without_a_graph_has_its_predictions_only(tmp_path: Path) -> None:
    stored = pl.DataFrame({"split": ["test"], "row_key": [1], "prediction": ["yes"], "probability_yes": [0.9]})
    content = io.BytesIO()
    stored.write_parquet(content)
    why = card(is_deployable=False, why_not="it sorts the batch")
    files = {SCHEMA: encode(SCHEMA_BINARY), CARD: encode(why), PREDICTIONS: content.getvalue()}
    model = LoadedModel(write_bundle(tmp_path / "b", files))
    assert_frame_equal(model.predictions, stored)
    assert "not deployable: it sorts the batch" in repr(model)
    with pytest.raises(LeptonError, match="has no graph: it sorts the batch"):
        model.predict(ROWS)
    with pytest.raises(LeptonError, match="No weights are stored"):
        _ = model.weights


def test_a_model_of_tensors_predicts_arrays(tmp_path: Path) -> None:
    schema = Schema(columns=(), targets=("y",), task="regression", tensor_shape=(2, 2))
    bundle = make_bundle(tmp_path / "b", schema, content=graph_of_tensors())
    array = np.arange(8, dtype=np.float64).reshape(2, 2, 2)
    assert LoadedModel(bundle).predict(array)["prediction"].to_list() == [6.0, 22.0]
    assert LoadedModel(bundle).predict(array.tolist())["prediction"].to_list() == [6.0, 22.0]
    with pytest.raises(LeptonError, match=r"takes arrays of shape \[N, 2, 2\], not a table"):
        predict_frame(bundle, ROWS)
