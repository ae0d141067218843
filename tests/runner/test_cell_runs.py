"""``%%lepton train`` cells in real kernels: the notebook's names are there, unseen."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from lepton_jupyter.runner.capture import capture_cell
from lepton_jupyter.runner.request import cell_notebook
from tests.runner.conftest import StartedRun

pytestmark = pytest.mark.slow


def test_a_cell_sees_the_notebooks_names_and_logs(
    start: Callable[..., StartedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "data.txt").write_text("as it was")
    (tmp_path / "helperlib.py").write_text("WORD = 'before'\n")
    shell = InteractiveShell()
    shell.run_cell("import helperlib\nSCALE = 3\ndef helper(x):\n    return x * SCALE", store_history=True)
    cell = (
        "from lepton_jupyter.runner import session\nSCALE = 4\n"
        "print(helper(2), helperlib.WORD, open('data.txt').read(), lepton.__name__)\nsession.log(loss=0.5)"
    )
    captured = capture_cell(cell, shell.user_ns)
    (tmp_path / "helperlib.py").write_text("WORD = 'after'\n")
    del sys.modules["helperlib"]
    run = start(
        notebook=cell_notebook(cell, "digits"), captured=captured, kind="cell", model="digits", spec={"name": "digits"}
    )
    end = run.end()
    assert end["state"] == "completed", (end, run.folder.log.read_text())
    notebook = json.loads(run.folder.notebook.read_bytes())
    assert [c["cell_type"] for c in notebook["cells"]] == ["markdown", "code"]
    printed = "".join(o.get("text", "") for o in notebook["cells"][1]["outputs"])
    assert printed == "8 before as it was lepton_jupyter\n"  # one namespace: the helper sees the cell's SCALE
    assert [e["values"] for e in run.told() if e["kind"] == "metric"] == [{"loss": 0.5}]
    assert not run.folder.reserve.exists()


def test_an_error_in_a_helper_points_into_the_notebooks_cell(
    start: Callable[..., StartedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shell = InteractiveShell()
    for _ in range(6):
        shell.run_cell("pass", store_history=True)
    shell.run_cell("def helper(x):\n    y = x\n    return y / 0", store_history=True)
    cell = "helper(1)"
    captured = capture_cell(cell, shell.user_ns)
    run = start(notebook=cell_notebook(cell, "t"), captured=captured, kind="cell", spec={"name": "t"})
    error = run.end()["error"]
    assert error["message"] == "ZeroDivisionError: division by zero (Cell In[7], line 3, in helper)"
    assert "Cell In[7], line 3" in error["detail"] and "return y / 0" in error["detail"]
    outputs = [o for c in json.loads(run.folder.notebook.read_bytes())["cells"] for o in c.get("outputs", [])]
    assert "Cell In[7], line 3" in re.sub(r"\x1b\[[0-9;]*m", "", "".join(outputs[-1]["traceback"]))


def test_a_kernelspec_that_is_not_there_is_named(start: Callable[..., StartedRun]) -> None:
    error = start("x = 1", kind="cell", kernel="pyton3", spec={"name": "t"}).end()["error"]
    assert "No kernelspec named 'pyton3'" in error["message"] and "Did you mean 'python3'?" in error["message"]
