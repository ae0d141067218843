"""A column of prose, from the notebook to the endpoint and back by the log, without torch on the way."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lepton_jupyter.core.paths import Home
from tests.life.conftest import Notebook
from tests.life.test_parity import WITHOUT_US, _close, _libraries

pytestmark = pytest.mark.slow

REVIEWS = Path(__file__).parents[1] / "reviews.csv"

READER = """
import torch
from torch import nn
class Reader(nn.Module):
    def __init__(self, vocab_size, n_features, n_outputs, width=32):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, width, padding_idx=0)
        self.out = nn.Linear(width + n_features, n_outputs)
    def forward(self, numeric, tokens):
        is_there = (tokens != 0).unsqueeze(-1)
        mean = (self.embed(tokens) * is_there).sum(1) / is_there.sum(1)
        return self.out(torch.cat([mean, numeric], 1))
"""

ODD: tuple[str | None, ...] = (
    None, "", " ", "never heard of it 🎈🧿", "[PAD] [CLS] [UNK]", "good " * 5_000, "x" * 9_000, "à la carte\n\tнет",
)  # fmt: skip

ASK = """
import json, httpx, numpy as np
from pathlib import Path
import polars as pl
rows = pl.read_parquet({rows!r})
token = {{"Authorization": "Bearer " + endpoint.token}}
plain = rows.to_dicts()
def ask(path, **body):
    answer = httpx.post(endpoint.url + path, headers=token | body.pop("headers", {{}}), timeout=60, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()
n = rows.height
typed = [("review", "BYTES"), ("bought_by", "BYTES"), ("days", "FP64")]
one = [{{"name": name, "datatype": kind, "shape": [n], "data": rows[name].to_list()}} for name, kind in typed]
packed = [
    {{"name": "num", "datatype": "FP64", "shape": [n, 1], "data": rows["days"].to_list()}},
    {{"name": "txt", "datatype": "BYTES", "shape": [n, 2], "data": rows.select("review", "bought_by").rows()}},
]
infer = "/v2/models/tone/infer"
told = lambda found: [o["data"] for o in found["outputs"] if o["name"] == "probability"][0][1::2]
csv = rows.write_csv(quote_style="non_numeric").encode()
def shares(path, **body):
    return [row["probability_yes"] for row in ask(path, **body)["predictions"]]
yes = {{
    "rows": shares("/predict", json={{"rows": plain}}),
    "alone": [shares("/predict", json=row)[0] for row in plain],
    "columns": shares("/predict", json={{"columns": rows.to_dict(as_series=False)}}),
    "csv": shares("/predict", content=csv, headers={{"Content-Type": "text/csv"}}),
    "mlflow": shares("/invocations", json={{"dataframe_records": plain}}),
    "v2": told(ask(infer, json={{"inputs": one}})),
    "v2 packed": told(ask(infer, json={{"inputs": packed}})),
}}
Path({answers!r}).write_text(json.dumps(yes))
"""


def test_prose_is_answered_the_same_however_it_is_asked(
    notebook: Notebook, home: Home, tmp_path: Path, client: Any
) -> None:
    shutil.copy(REVIEWS, tmp_path)
    told = notebook.run(f"%cd -q {tmp_path}\n%lepton data reviews reviews.csv --target liked --id order")
    assert "--text review" in told
    notebook.run("%lepton data reviews reviews.csv --target liked --id order --text review")
    notebook.run(READER)
    notebook.run("run = %lepton train Reader --data reviews --epochs 20 --lr 1e-2 --max-tokens 64")
    told = notebook.run("%lepton evaluate Reader --require 'accuracy >= 0.8'")
    assert "PASS" in told
    notebook.run("endpoint = %lepton deploy Reader@champion --as tone")
    test = pl.read_csv(REVIEWS).tail(30).select("review", "bought_by", "days")
    odd = pl.DataFrame({"review": ODD, "bought_by": ["web"] * len(ODD), "days": [3] * len(ODD)})
    rows, answers = tmp_path / "rows.parquet", tmp_path / "answers.json"
    pl.concat([test, odd]).write_parquet(rows)
    notebook.run(ASK.format(rows=str(rows), answers=str(answers)))
    notebook.run(f"""
lepton.predict("model/Reader", rows).write_parquet({str(tmp_path / "predict.parquet")!r})
lepton.load("model/Reader").predict(rows).write_parquet({str(tmp_path / "load.parquet")!r})
endpoint.predict(rows).drop("row_id").write_parquet({str(tmp_path / "endpoint.parquet")!r})
""")
    mlflow = [f"sqlite:///{home.mlflow_db}", "Reader", str(rows), str(tmp_path / "mlflow.parquet")]
    subprocess.run([sys.executable, "-c", WITHOUT_US, *mlflow], check=True, capture_output=True, cwd=tmp_path)
    first = pl.read_parquet(tmp_path / "predict.parquet")
    for way in ("endpoint", "load", "mlflow"):
        _close(first, pl.read_parquet(tmp_path / f"{way}.parquet"), 1e-5)
    for way, found in json.loads(answers.read_text()).items():
        assert found == pytest.approx(first["probability_yes"].to_list(), abs=1e-5), way
    assert first["probability_yes"][30:32].n_unique() == 1  # missing reads as empty
    loaded = _libraries(json.loads(home.endpoint("tone").status.read_bytes())["pid"])
    assert not [name for name in loaded if "/torch/" in name or "/polars" in name]
    assert [name for name in loaded if "/tokenizers/" in name]
    logged = notebook.run(
        "from lepton_jupyter.stages.monitor.window import read_window\nimport time\n"
        "from lepton_jupyter.core.paths import Home\n"
        "window = read_window(Home.current(), 'tone', time.time() - 600, time.time())\n"
        "print('never heard of it 🎈🧿' in window.rows['review'].to_list())"
    )
    assert "True" in logged
    assert "review" in notebook.run("%lepton monitor tone")
