"""A graph that leaves the house answers as it does here, with ONNX Runtime alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import Bundle
from tests.serving.graphs import ROW, expected_logit
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


def test_a_base_means_nothing_for_a_graph(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(LeptonError, match="--base means nothing for --format onnx"):
        export_to(tmp_path / "graph", bundle, format="onnx", base="/srv/bookworm")
    with pytest.raises(LeptonError, match="--image means nothing for --format onnx"):
        export_to(tmp_path / "graph", bundle, format="onnx", image="registry/net:3")
