"""From a marked column to a report with labels: the request log as a person uses it, in a real notebook."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.requestlog import segments, tables
from tests.life.conftest import CellError, Notebook

pytestmark = pytest.mark.slow

ROWS = """
import numpy as np, polars as pl, lepton_jupyter as lepton
from sklearn.linear_model import LogisticRegression
rng = np.random.default_rng(0)
age = rng.normal(50, 12, 400)
table = pl.DataFrame({
    "customer": [f"0{i:03d}" for i in range(400)], "age": age, "visits": rng.poisson(3, 400),
    "mail": [f"person{i % 19}@example.org" for i in range(400)],
    "left": np.where(age + rng.normal(0, 5, 400) > 50, "yes", "no"),
})
table.write_csv("people.csv")
churn = LogisticRegression(max_iter=500)
"""


def test_personal_columns_feedback_and_export_in_a_notebook(
    new_notebook: Callable[..., Notebook], home: Home, tmp_path: Path, client: Any, eventually: Callable[..., Any]
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    notebook = new_notebook(folder)
    notebook.run(ROWS)
    assert "mail looks like personal data" in notebook.run("%lepton data people people.csv --target left --id customer")
    notebook.run("%lepton train churn --data people")
    said = notebook.run("e = %lepton deploy churn --as churn", timeout_s=240)
    line = "%lepton data people people.csv --target left --id customer --personal mail"
    assert "mail looks personal, and the request log will hold what is sent there" in said and line in said
    first = b"".join(path.read_bytes() for path in home.endpoint("churn").root.rglob("*") if path.is_file())
    assert b"@example.org" not in first  # nothing was asked yet
    notebook.run(f"{line} --personal customer")
    notebook.run("%lepton train churn --data people")
    said = notebook.run("e = %lepton deploy churn --as churn --personal hash --log-days 30", timeout_s=240)
    assert "looks personal" not in said
    notebook.run("t = e.predict(table.head(30)); u = e.predict(table.tail(4).drop('customer'))")
    assert notebook.run("u['row_id'].str.ends_with('/3').to_list()[-1]").strip().endswith("True")
    said = notebook.run("%lepton feedback churn people.csv")
    assert "400 of them new" in said and "found in the log: 30" in said and "accuracy" in said
    notebook.run("wrong = u.select('row_id').with_columns(left=pl.lit('perhaps'))")
    with pytest.raises(CellError, match="Known: no, yes"):
        notebook.run("%lepton feedback churn wrong")
    assert "found in the log: 4" in notebook.run(
        "late = u.select('row_id').with_columns(left=pl.lit('yes'))\n%lepton feedback churn late"
    )
    assert "34 rows of 2 requests" in notebook.run("%lepton export-log churn --to log.parquet --since 1h")
    log = pl.read_parquet(folder / "log.parquet")
    assert log["mail"].str.len_chars().unique().to_list() == [32] and log["mail"].n_unique() == 19
    assert notebook.run("lepton.window('churn').rows['label'].count()").strip().endswith("34")

    notebook.run("%lepton stop endpoint/churn")
    place = home.endpoint("churn").requests
    eventually(lambda: tables(place) and not segments(place), timeout_s=60)  # made by the backend
    assert "34 rows of 2 requests" in notebook.run("lepton.export_log('churn', to='again.parquet')")
    assert pl.read_parquet(folder / "again.parquet").sort("row_id").equals(log.sort("row_id"))
    kept = b"".join(path.read_bytes() for path in home.endpoint("churn").root.rglob("*") if path.is_file())
    assert b"@example.org" not in kept
