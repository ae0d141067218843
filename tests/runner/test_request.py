"""What a client writes for a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.runner.capture import Captured
from lepton_jupyter.runner.request import (
    cell_notebook,
    environment_of,
    prepare_run,
    read_record,
    scrubbed_environment,
    stage_notebook,
    user_notebook,
)
from lepton_jupyter.runner.truth import repair_notebook, save


def _record(**more: Any) -> RunRecord:
    about: dict[str, Any] = {"run_id": "abc123", "kind": "cell", "title": "t", "created_at": 1.0, "cwd": "/tmp"}
    return RunRecord(python=sys.executable, **about, **more)


def test_a_folder_is_whole_and_private(home: Home) -> None:
    captured = Captured({"index.json": b"{}", "modules/a/b.py": b"x = 1"}, "", (), 7)
    folder = prepare_run(
        home, _record(), notebook=cell_notebook("x = 1", "Net"), captured=captured, environment={"A": "1", "JPY_X": "2"}
    )
    assert read_record(folder) == _record()
    assert (folder.payload / "modules/a/b.py").read_bytes() == b"x = 1"
    assert json.loads(folder.environment.read_bytes()) == {"A": "1"}
    assert environment_of(folder)["LEPTON_RUN"] == str(folder.root)
    assert folder.root.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.root.rglob("*") if path.is_file())
    assert [path.name for path in home.runs.iterdir()] == ["abc123"]


def test_what_fails_leaves_nothing(home: Home) -> None:
    captured = Captured({"../" * 40 + "proc/nowhere": b""}, "", (), 0)
    with pytest.raises(LeptonError, match="cannot be written"):
        prepare_run(home, _record(), notebook={}, captured=captured, environment={})
    with pytest.raises(TypeError):
        prepare_run(home, _record(), notebook={"cells": object()}, captured=None, environment={})
    assert list(home.runs.iterdir()) == []


def test_what_belongs_to_jupyter_and_the_hub_is_scrubbed() -> None:
    mine = {"PATH": "/bin", "DB_URL": "x", "JUPYTER_PATH": "/j", "MY_TOKEN": "kept", "PYTHONPATH": "/p"}
    theirs = dict.fromkeys(
        ("JPY_PARENT_PID", "JPY_API_TOKEN", "JUPYTERHUB_API_TOKEN", "JUPYTERHUB_USER", "JUPYTER_TOKEN",
         "JUPYTER_GATEWAY_AUTH_TOKEN", "KERNEL_ID", "JUPYTER_SERVER_URL", "LEPTON_RUN", "LEPTON_LEASE_FDS"), "1",
    )  # fmt: skip
    assert scrubbed_environment({**mine, **theirs}) == mine


def test_a_stages_notebook_is_filled_in() -> None:
    notebook = stage_notebook("evaluate", title="Net@3", source="%lepton evaluate Net")
    text = json.dumps(notebook)
    assert "Net@3" in text and "%lepton evaluate Net" in text and "{{" not in text


def test_a_notebook_that_is_not_there_or_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "report.ipynb").write_text(json.dumps(cell_notebook("1", "t")))
    (tmp_path / "broken.ipynb").write_text("{")
    (tmp_path / "other.ipynb").write_text("[]")
    assert user_notebook(tmp_path / "report.ipynb")["nbformat"] == 4
    with pytest.raises(LeptonError, match=r"Did you mean 'report\.ipynb'"):
        user_notebook(tmp_path / "reprot.ipynb")
    with pytest.raises(LeptonError, match="cannot be read as a notebook"):
        user_notebook(tmp_path / "broken.ipynb")
    with pytest.raises(LeptonError, match="no notebook: it has no cells"):
        user_notebook(tmp_path / "other.ipynb")


def test_repair_leaves_a_true_notebook_alone_and_survives_odd_text(tmp_path: Path) -> None:
    path = tmp_path / "n.ipynb"
    assert not repair_notebook(path, state="failed", message="x")
    notebook = cell_notebook("1", "t")
    save(notebook, path)
    assert not repair_notebook(path, state="failed", message="x")
    notebook["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "\ud800 lone"}]
    save(notebook, path)
    assert json.loads(path.read_bytes())["cells"][1]["outputs"][0]["text"] == "\ud800 lone"
    path.write_text("half")
    with pytest.raises(LeptonError, match="cannot be read"):
        repair_notebook(path, state="failed", message="x")


def test_parameters_reach_a_notebook_that_names_no_kernel(tmp_path: Path) -> None:
    from papermill.execute import execute_notebook

    cells = [{"cell_type": "code", "id": "a", "metadata": {"tags": ["parameters"]}, "source": "region = 'south'",
              "outputs": [], "execution_count": None}]  # fmt: skip
    path = tmp_path / "bare.ipynb"
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))
    path.write_text(json.dumps(user_notebook(path)))
    made = execute_notebook(
        path, None, parameters={"region": "north"}, engine_name="lepton", prepare_only=True, progress_bar=False
    )
    assert [cell.source for cell in made.cells] == ["region = 'south'", '# Parameters\nregion = "north"\n']
