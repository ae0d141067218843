"""The example notebooks run headless, hold no widget state, and show what they showed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import papermill
import pytest

from lepton_jupyter.core.paths import Home

EXAMPLES = Path(__file__).resolve().parents[2] / "example_notebooks"
NOTEBOOKS = sorted(EXAMPLES.glob("[0-9]*.ipynb"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # a minute each; many more on a machine that is busy


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_an_example_runs_headless_by_papermill(path: Path, home: Home, tmp_path: Path) -> None:
    papermill.execute_notebook(path, tmp_path / path.name, cwd=EXAMPLES, kernel_name="python3", progress_bar=False)
    book = json.loads((tmp_path / path.name).read_text())
    assert "widgets" not in book["metadata"]
    (EXAMPLES / "scored.parquet").unlink(missing_ok=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_an_example_shows_again_what_it_showed(path: Path, home: Home) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval-lax", "-q", "-p", "no:cacheprovider", "-W", "ignore", str(path)],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
    )
    (EXAMPLES / "scored.parquet").unlink(missing_ok=True)
    assert checked.returncode == 0, checked.stdout[-3000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_an_example_in_git_has_outputs_and_neither_widget_state_nor_machine_paths(path: Path) -> None:
    text = path.read_text()
    book = json.loads(text)
    assert "widgets" not in book["metadata"]
    assert "/root/" not in text
    assert str(EXAMPLES) not in text
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    assert not [o for cell in code for o in cell["outputs"] if o["output_type"] == "error"]
