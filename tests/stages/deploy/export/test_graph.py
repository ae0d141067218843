"""A graph that leaves the house answers as it does here, with ONNX Runtime alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import Bundle
from lepton_jupyter.formats.packing import pack_rows
from lepton_jupyter.serving.scorer import Scorer
from tests.serving.graphs import ROW, expected_logit, make_bundle
from tests.serving.test_pictures import SCHEMA_IMAGE, graph_of_images
from tests.serving.test_text import ROW as PROSE
from tests.serving.test_text import SCHEMA_TEXT, text_bundle
from tests.stages.deploy.export.images import export_to

NO_HOUSE = (
    "import sys; sys.modules['lepton_jupyter'] = None; import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def ask(folder: Path, *rows: str) -> list[dict[str, float]]:
    code = f"import sys; sys.argv = sys.argv[1:]; {NO_HOUSE}"
    argv = [sys.executable, "-c", code, str(folder / "ask.py"), *rows]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, cwd="/").stdout
    return [json.loads(line) for line in said.splitlines()]


def test_the_script_beside_a_graph_gives_its_answers(bundle: Bundle, tmp_path: Path) -> None:
    made = export_to(tmp_path / "graph", bundle, format="onnx")
    assert set(made.parts) == {"graph.onnx", "schema.json", "card.json", "ask.py"}
    (example,) = ask(tmp_path / "graph")
    assert set(example) == {"probability_no", "probability_yes"}
    rows = [ROW, {"age": None, "island": None, "children": 1}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    found = ask(tmp_path / "graph", str(tmp_path / "rows.json"))
    for row, answer in zip(rows, found, strict=True):
        logit = expected_logit(row["age"], row["children"], row["island"])
        assert answer["probability_yes"] == pytest.approx(1 / (1 + 2.718281828459045**-logit), abs=1e-6)


def test_prose_and_images_are_asked_as_an_endpoint_asks_them(tmp_path: Path) -> None:
    prose = text_bundle(tmp_path / "prose")
    export_to(tmp_path / "reader", prose, format="onnx")
    rows = [PROSE, PROSE | {"title": None, "body": "fine " * 99, "age": None}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    found = [answer["prediction_score"] for answer in ask(tmp_path / "reader", str(tmp_path / "rows.json"))]
    wanted = Scorer(prose).score(pack_rows(SCHEMA_TEXT, rows)).prediction[:, 0]
    assert np.array_equal(found, wanted, equal_nan=True)
    export_to(tmp_path / "seer", make_bundle(tmp_path / "b", SCHEMA_IMAGE, content=graph_of_images()), format="onnx")
    red = np.zeros((3, 12, 16), int)
    red[0] = 255
    (tmp_path / "pixels.json").write_text(json.dumps([red.tolist()]))
    (seen,) = ask(tmp_path / "seer", str(tmp_path / "pixels.json"))
    assert seen["probability_red"] > 0.99
    assert len(ask(tmp_path / "seer")) == 1


def test_a_base_means_nothing_for_a_graph(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(LeptonError, match="--base means nothing for --format onnx"):
        export_to(tmp_path / "graph", bundle, format="onnx", base="/srv/bookworm")
    with pytest.raises(LeptonError, match="--image means nothing for --format onnx"):
        export_to(tmp_path / "graph", bundle, format="onnx", image="registry/net:3")
