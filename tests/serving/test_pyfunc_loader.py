"""The loader that travels with a model answers as we do, without us."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lepton_jupyter.formats.bundle import GRAPH
from lepton_jupyter.formats.packing import PackingError, pack_rows, row_ids
from lepton_jupyter.formats.schema import Column, Schema
from lepton_jupyter.serving import pyfunc_loader
from lepton_jupyter.serving.pyfunc_loader import _load_pyfunc, _numbers
from lepton_jupyter.serving.scorer import Scorer
from tests.serving.graphs import (
    ROW,
    SCHEMA_BINARY,
    SCHEMA_MULTI,
    SCHEMA_REGRESSION,
    graph,
    graph_of_tensors,
    make_bundle,
)

ROWS: list[dict[str, Any]] = [
    {**ROW, "patient": "p1", "sick": "yes", "remark": "x"},
    {"age": None, "island": None, "children": None, "patient": "p2", "sick": None, "remark": None},
    {"age": 3.5, "island": "unseen", "children": 0, "patient": "p3", "sick": "no", "remark": ""},
]


@pytest.mark.parametrize("schema", [SCHEMA_BINARY, SCHEMA_MULTI, SCHEMA_REGRESSION])
@pytest.mark.parametrize("dtypes", [{}, {"children": "Int64"}, {"children": "object", "island": "category"}])
def test_it_gives_the_table_of_the_scorer(tmp_path: Path, schema: Schema, dtypes: dict[str, str]) -> None:
    bundle = make_bundle(tmp_path / "b", schema)
    rows = [{k: v for k, v in row.items() if k != "sick" or "sick" in schema.targets} for row in ROWS]
    frame = pd.DataFrame(rows).astype(dtypes)
    found = _load_pyfunc(str(bundle.root)).predict(frame[list(reversed(frame.columns))])
    scorer = Scorer(bundle)
    wanted = scorer.table(scorer.score(pack_rows(schema, rows)), row_ids(schema, rows))
    assert found.to_dict("list") == wanted
    assert _load_pyfunc(str(bundle.root)).predict(frame.head(0)).columns.tolist() == list(wanted)


def test_it_runs_where_we_are_not_installed(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    shutil.copy(pyfunc_loader.__file__, tmp_path / "lepton_pyfunc.py")
    code = f"""
import sys
import pandas as pd
import lepton_pyfunc
print(lepton_pyfunc._load_pyfunc({str(bundle.root)!r}).predict(pd.DataFrame([{ROW!r}]))["prediction"][0])
print([name for name in ("lepton_jupyter", "torch", "polars", "msgspec") if name in sys.modules])
"""
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    said = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path, env=environment
    ).stdout
    assert said == "yes\n[]\n"
    assert list(home.rglob("*")) == [], "the runtime's telemetry is off"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("number", [1, 2.5, None]),
        ("integer", [1, 2.0, None]),
        ("boolean", [True, 0, None]),
        ("boolean", [True, False, True]),
        ("datetime", ["2024-02-29", "2024-02-29T12:00:00+02:00", None]),
        ("datetime", [datetime.datetime(2024, 2, 29, 1, 2, 3, 456789), datetime.datetime(1960, 1, 1), None]),
        ("datetime", [1.7e9, 0, None]),
        ("number", [None, None, None]),
    ],
)
def test_it_reads_values_as_packing_does(kind: Any, values: list[Any]) -> None:
    schema = Schema(columns=(Column(name="a", kind=kind),))
    wanted = pack_rows(schema, [{"a": value} for value in values]).num[:, 0]
    for series in (pd.Series(values), pd.Series(values, dtype=object)):
        np.testing.assert_array_equal(_numbers(series, {"name": "a", "kind": kind}), wanted)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("number", "7"), ("number", True), ("integer", 1.5), ("boolean", 2), ("boolean", "yes"),
        ("datetime", "yesterday"), ("number", float("inf")),
    ],
)  # fmt: skip
def test_it_refuses_what_packing_refuses(kind: Any, value: Any) -> None:
    schema = Schema(columns=(Column(name="a", kind=kind),))
    with pytest.raises(PackingError):
        pack_rows(schema, [{"a": value}])
    for series in (pd.Series([value]), pd.Series([value], dtype=object)):
        with pytest.raises(ValueError, match="'a'"):
            _numbers(series, {"name": "a", "kind": kind})


def test_missing_unknown_and_wrong_columns_are_named(tmp_path: Path) -> None:
    model = _load_pyfunc(str(make_bundle(tmp_path / "b").root))
    with pytest.raises(ValueError, match="Columns are missing: age"):
        model.predict(pd.DataFrame([{"island": "Dream", "children": 1}]))
    with pytest.raises(ValueError, match="knows no columns agee"):
        model.predict(pd.DataFrame([{**ROW, "agee": 1}]))
    with pytest.raises(ValueError, match="'island' wants text; row 0 holds 3"):
        model.predict(pd.DataFrame([{**ROW, "island": 3}]))


def test_a_changed_graph_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    (bundle.root / GRAPH).write_bytes(graph(SCHEMA_BINARY, shift=1.0))
    with pytest.raises(ValueError, match="was changed"):
        _load_pyfunc(str(bundle.root))


def test_a_model_of_tensors_takes_an_array(tmp_path: Path) -> None:
    schema = Schema(columns=(), targets=("y",), task="regression", tensor_shape=(2, 2))
    model = _load_pyfunc(str(make_bundle(tmp_path / "b", schema, content=graph_of_tensors()).root))
    assert model.predict(np.arange(8).reshape(2, 2, 2)).to_dict("list") == {"prediction": [6.0, 22.0]}
