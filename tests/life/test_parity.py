"""One answer, four ways: predict, endpoint, lepton.load and MLflow without us, over real and planted rows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from lepton_jupyter.core.paths import Home
from tests.life.conftest import EXAMPLES, NET, Notebook

pytestmark = pytest.mark.slow

WITHOUT_US = """
import sys, importlib.abc
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("lepton_jupyter", "torch", "polars"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(f"models:/{sys.argv[2]}@champion")
frame = pd.read_parquet(sys.argv[3])
model.predict(frame[list(reversed(frame.columns))]).to_parquet(sys.argv[4])
"""

PLANT = """
import polars as pl
def planted(frame):
    holes = frame.clone()
    for name in frame.columns:
        holes = holes.with_columns(
            pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).otherwise(pl.col(name)).alias(name))
    words = [n for n, kind in frame.schema.items() if kind == pl.String]
    unseen = frame.with_columns([pl.lit("never seen").alias(n) for n in words])
    return pl.concat([frame, holes, unseen], how="vertical_relaxed")
"""


def _close(left: pl.DataFrame, right: pl.DataFrame, tolerance: float) -> None:
    assert left.columns == right.columns
    assert left.height == right.height
    for name in left.columns:
        if left[name].dtype.is_numeric() and right[name].dtype.is_numeric():
            worst = np.abs(left[name].cast(pl.Float64).to_numpy() - right[name].cast(pl.Float64).to_numpy()).max()
            assert worst <= tolerance, (name, worst)
        else:
            assert left[name].cast(pl.String).to_list() == right[name].cast(pl.String).to_list(), name


def _four_ways(notebook: Notebook, home: Home, tmp_path: Path, *, model: str, data: str, tolerance: float) -> None:
    notebook.run(PLANT)
    notebook.run(f"""
record = lepton.datasets()[0].record
columns = [c.name for c in record.schema.columns]
rows = planted(lepton.load('{data}:test').select(columns))
rows.write_parquet({str(tmp_path / "rows.parquet")!r})
lepton.predict('model/{model}', rows).write_parquet({str(tmp_path / "predict.parquet")!r})
endpoint = lepton.deploy('{model}@champion', as_='parity')
answer = endpoint.predict(rows.select(list(reversed(columns))))
answer.drop('row_id').write_parquet({str(tmp_path / "endpoint.parquet")!r})
lepton.load('model/{model}').predict(rows).write_parquet({str(tmp_path / "load.parquet")!r})
""")
    subprocess.run(
        [
            sys.executable,
            "-c",
            WITHOUT_US,
            f"sqlite:///{home.mlflow_db}",
            model,
            str(tmp_path / "rows.parquet"),
            str(tmp_path / "mlflow.parquet"),
        ],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    first = pl.read_parquet(tmp_path / "predict.parquet")
    assert first.height > 0
    for way in ("endpoint", "load", "mlflow"):
        _close(first, pl.read_parquet(tmp_path / f"{way}.parquet"), tolerance)


def _trained(notebook: Notebook, *, data: str, arguments: str, model: str = "TumorNet") -> None:
    notebook.run(f"%lepton data {data} {arguments}")
    notebook.run(f"run = %lepton train {model} --data {data} --epochs 15 --lr 1e-2")
    notebook.run(f"%lepton evaluate {model}")
    parity = json.loads(notebook.run("import json; print(json.dumps(lepton.load('model/" + model + "').card.parity))"))
    assert parity["worst"] <= parity["tolerance"]
    assert parity["rows"] > 0


@pytest.mark.parametrize(
    ("data", "arguments", "tolerance"),
    [
        ("wdbc", "breast_cancer.csv --target diagnosis", 1e-5),
        ("penguins", "penguins.csv --target species", 1e-5),
    ],
)
def test_a_classifier_answers_the_same_four_ways_and_no_server_loads_torch(
    data: str, arguments: str, tolerance: float, notebook: Notebook, home: Home, tmp_path: Path, client: Any
) -> None:
    notebook.run(NET)
    _trained(notebook, data=data, arguments=arguments)
    _four_ways(notebook, home, tmp_path, model="TumorNet", data=data, tolerance=tolerance)
    backend = _libraries(client().health().pid)  # after a training run
    assert not [name for name in backend if "/torch/" in name]
    endpoint = _libraries(json.loads(home.endpoint("parity").status.read_bytes())["pid"])
    assert not [name for name in endpoint if "/torch/" in name or "/mlflow/" in name or "/polars" in name]
    assert [name for name in endpoint if "onnxruntime" in name]


def test_a_regression_answers_the_same_four_ways(notebook: Notebook, home: Home, tmp_path: Path) -> None:
    notebook.run(NET)
    _trained(notebook, data="diabetes", arguments="diabetes.csv --target progression")
    deviation = float(pl.read_csv(EXAMPLES / "diabetes.csv")["progression"].std())  # type: ignore[arg-type]
    _four_ways(notebook, home, tmp_path, model="TumorNet", data="diabetes", tolerance=1e-5 * deviation)


def test_awkward_columns_answer_the_same_four_ways(
    new_notebook: Callable[..., Notebook], home: Home, tmp_path: Path
) -> None:
    """All-null columns, integers with nulls, epoch seconds, booleans, missing strings."""
    rng = np.random.default_rng(0)
    n = 300
    seconds = 1_700_000_000 + rng.integers(0, 86_400, n)
    colour = rng.choice(["red", "green", "blue"], n)
    pl.DataFrame(
        {
            "nothing": pl.Series([None] * n, dtype=pl.Float64),
            "count": [None if i % 7 == 0 else int(v) for i, v in enumerate(rng.integers(0, 50, n))],
            "at": seconds,
            "is_new": rng.random(n) < 0.5,
            "colour": [None if i % 5 == 0 else str(c) for i, c in enumerate(colour)],
            "label": np.where((seconds % 86_400 > 43_200) ^ (colour == "red"), "yes", "no"),
        }
    ).write_parquet(tmp_path / "awkward.parquet")
    notebook = new_notebook(tmp_path)
    notebook.run(NET)
    _trained(notebook, data="awkward", arguments="awkward.parquet --target label")
    _four_ways(notebook, home, tmp_path, model="TumorNet", data="awkward", tolerance=1e-5)


def _libraries(pid: int) -> list[str]:
    return [line.rpartition(" ")[2] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
