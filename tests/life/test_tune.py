"""A search as a person types it: in a cell, from Python, from the shell; its version judged like any other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from lepton_jupyter.core.paths import Home, RunFolder
from lepton_jupyter.runner.request import read_record
from tests.life.conftest import EXAMPLES, NET, CellError, Notebook
from tests.life.test_retrain import append_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

DATA = "%load_ext lepton_jupyter\n%lepton data wdbc breast_cancer.csv --target diagnosis"
FEW = "--trials 4 --epochs 3"
NONSENSE = [
    ("", "--search", "search"),
    ('--search "lr=loguniform(1e-1,1e-4)"', "lr=loguniform(1e-1,1e-4)", "empty"),
    ('--search "width=int(4,8)"', "width", "hidden"),
    ('--search "lr=loguniforn(1e-4,1e-1)"', "loguniforn", "Did you mean 'loguniform'"),
    ('--search "optimizer=choice(adamm,sgd)"', "adamm", "Did you mean"),
    ('--search "lr=choice()"', "lr=choice()", "empty"),
    ('--search "lr=uniform(0.1,0.2)" --metric val_acuracy', "acuracy", "Did you mean"),
    ('--search "lr=uniform(0.1,0.2)" --resume abc', "--resume", "goes on by itself"),
    ('--search "lr=uniform(-1,0.2)"', "lr=uniform(-1,0.2)", "lr"),
]


@pytest.fixture
def notebook(new_notebook: Callable[..., Notebook], home: Home) -> Notebook:
    found = new_notebook(EXAMPLES)
    found.run(DATA)
    found.run(NET)
    return found


def test_a_search_from_a_cell_ends_with_a_version_that_can_be_judged(notebook: Notebook, home: Home) -> None:
    line = f'found = %lepton tune TumorNet --data wdbc --search "lr=loguniform(1e-4,1e-1)" {FEW}'
    notebook.run(line, timeout_s=200)
    text = notebook.run("found")
    assert "best: trial" in text
    assert "TumorNet@1" in text
    folder = Path(notebook.run("print(found.folder)").strip())
    study = optuna.load_study(study_name="TumorNet", storage=f"sqlite:///{folder}/study.db")
    assert len(study.trials) == 4
    executed = json.loads((folder / "notebook.ipynb").read_bytes())
    assert "best: trial" in json.dumps(executed["cells"][-1]["outputs"])
    assert "best: trial" in notebook.run("%lepton show {found.ref}")
    assert "PASS" in notebook.run('%lepton evaluate TumorNet --require "accuracy >= 0.3"', timeout_s=120)
    assert " tune " in notebook.run("%lepton runs")


def test_python_takes_the_models_own_arguments_and_objects(notebook: Notebook) -> None:
    line = "import lepton_jupyter as lepton; found = lepton.tune(TumorNet, data='wdbc', search='hidden=choice(4,8)', "
    notebook.run(line + "trials=3, epochs=2, batch_size=64)", timeout_s=200)
    assert set(eval(notebook.run("print(found.params)"))) == {"hidden"}
    assert notebook.run("print(found.metric, len(found.trials), found.state)").split() == ["val_loss", "3", "completed"]
    assert notebook.run("print(len(found.figures()))").strip() in ("2", "3")


def test_the_shell_searches_too(notebook: Notebook, home: Home, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NET)
    argv = [sys.executable, "-m", "lepton_jupyter.faces.cli", "tune", "nets:TumorNet", "--data", "wdbc"]
    argv += ["--search", "lr=loguniform(1e-4,1e-1)", *FEW.split()]
    done = subprocess.run(argv, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "best: trial" in done.stdout


def test_nonsense_is_refused_before_a_run_is_made(notebook: Notebook, home: Home) -> None:
    for flags, wrong, hint in NONSENSE:
        with pytest.raises(CellError) as failed:
            notebook.run(f"%lepton tune TumorNet --data wdbc {flags}")
        assert wrong in str(failed.value)
        assert hint in str(failed.value)
    assert not home.runs.exists() or not list(home.runs.iterdir())


def test_what_a_search_found_is_what_a_retrain_repeats(
    new_notebook: Callable[..., Notebook], tmp_path: Path, home: Home
) -> None:
    (tmp_path / "clinic.csv").write_bytes((EXAMPLES / "breast_cancer.csv").read_bytes())
    notebook = new_notebook(tmp_path)
    notebook.run("%load_ext lepton_jupyter\n%lepton data clinic clinic.csv --target diagnosis")
    notebook.run(NET)
    texts = '--search "lr=loguniform(1e-3,1e-2)" --search "hidden=choice(4,8)"'
    notebook.run(f"found = %lepton tune TumorNet --data clinic {texts} {FEW}", timeout_s=200)
    notebook.run('%lepton evaluate TumorNet --require "accuracy >= 0.3"', timeout_s=120)
    append_rows(tmp_path / "clinic.csv", 300)
    notebook.run("%lepton retrain TumorNet", timeout_s=300)
    trained = [read_record(RunFolder(path)) for path in home.runs.iterdir()]
    (again,) = [record for record in trained if record.kind == "train"]
    best = eval(notebook.run("print(found.params)"))
    assert (again.spec["lr"], again.spec["params"]) == (best["lr"], {"hidden": best["hidden"]})
    assert (again.spec["epochs"], again.dataset) == (3, "clinic@2")
    assert "search" not in again.spec
    assert "## Training" in home.run(again.run_id).notebook.read_text()
