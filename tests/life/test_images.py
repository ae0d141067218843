"""A folder of image files, from the notebook to an endpoint; and arrays, whose card says how to send them."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.paths import Home
from tests.life.conftest import Notebook
from tests.pictures import write_digits

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NET = """
from torch import nn
class Reader(nn.Module):
    def __init__(self, input_shape, n_outputs):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(input_shape[0], 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
            nn.Linear(128, n_outputs))
    def forward(self, x):
        return self.layers(x)
"""


def shell(line: str) -> Any:
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rows_of(notebook: Notebook, code: str) -> dict[str, float]:
    """Return the probability of the first class, by path, of a table that some code makes."""
    text = notebook.run(
        f"import json; print('<<' + json.dumps(({code}).select('path', 'probability_n0').rows()) + '>>')"
    )
    return dict(json.loads(text.split("<<")[1].split(">>")[0]))


def test_a_folder_of_images_becomes_an_endpoint(
    home: Home, new_notebook: Callable[..., Notebook], tmp_path: Path
) -> None:
    digits = write_digits(tmp_path / "digits")
    (digits / "n0" / "cut.png").write_bytes((digits / "n1" / "1.png").read_bytes()[:50])
    notebook = new_notebook(tmp_path)
    said = notebook.run("%lepton data digits digits")
    assert "8x8 grey" in said and "n0/cut.png (it cannot be decoded" in said
    (digits / "n0" / "cut.png").unlink()
    assert "unchanged" in notebook.run("%lepton data digits digits")
    notebook.run(NET)
    assert "Reader@1" in notebook.run("%lepton train Reader --data digits --epochs 12 --lr 1e-2", timeout_s=240)
    verdict = notebook.run('%lepton evaluate Reader --require "accuracy >= 0.6"', timeout_s=120)
    assert "PASS" in verdict, verdict
    card = notebook.run("reader = %lepton deploy Reader --as digits-reader\nprint(reader._text())", timeout_s=120)
    line = next(line.strip() for line in card.splitlines() if line.strip().startswith("curl"))
    assert "--data-binary @" in line and "Content-Type: image/" in line
    (row,) = shell(line)["predictions"]
    assert row["prediction"].startswith("n")
    wanted = rows_of(notebook, "lepton.predict('Reader', 'digits')")
    assert len(wanted) == 360
    by_endpoint = rows_of(notebook, "reader.predict('digits')")
    assert by_endpoint == pytest.approx(wanted, abs=1e-5)
    assert rows_of(notebook, "lepton.load('model/Reader').predict('digits')") == pytest.approx(wanted, abs=1e-5)
    _check_forms(home, digits, wanted)


def _check_forms(home: Home, digits: Path, wanted: dict[str, float]) -> None:
    """Ask by a raw body, by base64 and by the Open Inference Protocol; all must answer as `predict` did."""
    import httpx

    view = Client(home).endpoint("digits-reader")
    headers = {"Authorization": f"Bearer {Path(view.token_path).read_text().strip()}"}
    paths = sorted(wanted)[::40]
    with httpx.Client(base_url=view.url, headers=headers, trust_env=False, timeout=30) as line:
        for path in paths:
            kind = "image/png" if path.endswith("png") else "image/jpeg"
            answer = line.post("/predict", content=(digits / path).read_bytes(), headers={"Content-Type": kind}).json()
            assert answer["predictions"][0]["probability_n0"] == pytest.approx(wanted[path], abs=1e-5)
        texts = [base64.b64encode((digits / path).read_bytes()).decode() for path in paths]
        rows = [{"image": text, "path": path} for text, path in zip(texts, paths, strict=True)]
        answers = line.post("/predict", json={"rows": rows}).json()["predictions"]
        assert [row["path"] for row in answers] == paths
        assert [row["probability_n0"] for row in answers] == pytest.approx([wanted[p] for p in paths], abs=1e-5)
        tensor = {"name": "image", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
        _, shares = line.post("/v2/models/Reader/infer", json={"inputs": [tensor]}).json()["outputs"]
        assert shares["data"][::3] == pytest.approx([wanted[p] for p in paths], abs=1e-5)


def test_a_model_of_arrays_says_how_to_send_them(new_notebook: Callable[..., Notebook], tmp_path: Path) -> None:
    notebook = new_notebook(tmp_path)
    notebook.run(
        "from sklearn.datasets import load_digits\ndigits = load_digits()\nx, y = digits.images[:300, None],"
        " digits.target[:300]"
        "\npair = (x, y)"
    )
    notebook.run(NET)
    notebook.run("%lepton data arrays pair")
    notebook.run("%lepton train Reader --data arrays --epochs 2", timeout_s=240)
    card = notebook.run(
        "reader = %lepton deploy Reader --as arrays-reader\nprint('\\n'.join(reader.asking))", timeout_s=180
    )
    start = card.rindex("import json, urllib.request")
    code = card[start:].strip()
    assert "[N, 1, 8, 8]" in code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["predictions"]
    assert "probability_7" in row
