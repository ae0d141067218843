"""Run All twice, two notebooks at once, ten clients at once, runs inside runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest

from lepton_jupyter.core.paths import Home
from tests.life.conftest import EXAMPLES, NET, Notebook

pytestmark = pytest.mark.slow


def _cells(name: str) -> list[str]:
    book = nbformat.read(EXAMPLES / name, as_version=4)
    return [cell.source for cell in book.cells if cell.cell_type == "code"]


def test_running_the_quickstart_twice_adds_only_a_version(notebook: Notebook, client: Any, tmp_path: Path) -> None:
    for _ in range(2):
        for cell in _cells("00_quickstart.ipynb"):
            notebook.run(cell.replace("scored.parquet", str(tmp_path / "scored.parquet")))
    assert "1 1 2" in notebook.run(
        "print(len(lepton.datasets()[0].versions), len(lepton.endpoints()), len([m for m in lepton.models()]))"
    )
    assert client().endpoint("diagnosis").version == "TumorNet@2"


def test_two_notebooks_at_once_do_not_disturb_each_other(new_notebook: Callable[..., Notebook], client: Any) -> None:
    left, right = new_notebook(), new_notebook()
    for notebook in (left, right):
        notebook.run("%lepton data wdbc breast_cancer.csv --target diagnosis")
    left.run(NET)
    right.run(NET.replace("TumorNet", "OtherNet"))
    asked = [
        (left, left.start("%lepton train TumorNet --data wdbc --epochs 3")),
        (right, right.start("%lepton train OtherNet --data wdbc --epochs 3")),
    ]
    for notebook, request in asked:
        notebook.finish(request)
    assert {v.model for v in client().models()} == {"TumorNet", "OtherNet"}
    assert {r.state for r in client().runs(kind="train")} == {"completed"}


def test_ten_clients_that_start_the_backend_at_once_get_one(home: Home, client: Any) -> None:
    with ThreadPoolExecutor(10) as pool:
        assert len(set(pool.map(lambda _: client().health().pid, range(10)))) == 1


def test_runs_that_train_inside_share_one_slot_without_deadlock(
    home: Home, tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEPTON_CPU_SLOTS", "1")
    book = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell("model = 'A'", metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell("%load_ext lepton_jupyter"),
            nbformat.v4.new_code_cell(f"%lepton data wdbc {EXAMPLES / 'breast_cancer.csv'} --target diagnosis"),
            nbformat.v4.new_code_cell(NET),
            nbformat.v4.new_code_cell("%lepton train TumorNet --data wdbc --epochs 2 --name {model}"),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    path = tmp_path / "inner.ipynb"
    nbformat.write(book, path)
    asked = [
        subprocess.Popen(
            [sys.executable, "-m", "lepton_jupyter.faces.cli", "run", str(path), "-p", f"model={name}"],
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("A", "B")
    ]
    for process in asked:
        printed, _ = process.communicate(timeout=150)
        assert process.returncode == 0, printed
    inner = client().runs(kind="train")
    assert {run.state for run in inner} == {"completed"}
    assert all(run.parent for run in inner)
    assert {v.model for v in client().models()} == {"A", "B"}
