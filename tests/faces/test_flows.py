"""Verbs that make runs, in a real shell with a real backend: what is shown, returned, refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[2] / "example_notebooks"
NET = """
from torch import nn
class Net(nn.Module):
    def __init__(self, n_features, n_outputs, hidden=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, hidden), nn.ReLU(), nn.Linear(hidden, n_outputs))
    def forward(self, x):
        return self.layers(x)
"""

PROGRAM = """%%lepton train \\
--name prog
for i in range(3):
    lepton.log(step=i, loss=SCALE / (i + 1))
print('done')
"""


class Typing:
    """A person at a shell."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell

    def __call__(self, cell: str) -> Any:
        """Run a cell; return its value, or raise its error."""
        result = self.shell.run_cell(cell)
        result.raise_error()
        return result.result

    def refused(self, cell: str) -> str:
        """Run a cell that we refuse; return what is said."""
        error = self.shell.run_cell(cell).error_in_exec
        assert isinstance(error, LeptonError), repr(error)
        return str(error)


@pytest.fixture
def person(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Typing]:
    monkeypatch.chdir(tmp_path)
    for name in ("breast_cancer.csv", "new_patients.csv"):
        (tmp_path / name).symlink_to(EXAMPLES / name)
    shell = InteractiveShell.instance()
    typing = Typing(shell)
    typing("%load_ext lepton_jupyter\nimport lepton_jupyter as lepton")
    yield typing
    typing("%unload_ext lepton_jupyter")
    InteractiveShell.clear_instance()


def _notebook(path: Path, *cells: str) -> None:
    code = [
        {"cell_type": "code", "id": f"c{at}", "metadata": {"tags": ["parameters"] if at == 0 else []}, "source": cell,
         "outputs": [], "execution_count": None}
        for at, cell in enumerate(cells)
    ]  # fmt: skip
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": kernel, "cells": code}))


def test_a_model_goes_from_data_to_an_endpoint(person: Typing, capsys: pytest.CaptureFixture[str]) -> None:
    person("%lepton data wdbc breast_cancer.csv --target diagnosis  # comment")
    person(NET)
    run = person("run = lepton.train(Net, data='wdbc', epochs=3, lr=1e-2, hidden=8)\nrun")
    assert (run.state, run.version) == ("completed", "Net@1")
    assert run.metrics["rows_per_s"] > 0
    assert sum("val_loss" in event.get("values", {}) for event in run.events()) == 3
    assert run.notebook.exists()
    evaluation = person('found = %lepton evaluate Net --require "roc_auc >= 0.5"\nfound')
    assert (evaluation.verdict, evaluation.passed) == ("PASS", True)
    table = person("%lepton predict Net new_patients.csv --to scored.parquet")
    assert table.columns == ["prediction", "probability_B", "probability_M"]
    assert Path("scored.parquet").exists()
    endpoint = person("%lepton deploy Net --as diagnosis;")
    assert endpoint.version == "Net@1"
    said = capsys.readouterr().out
    assert endpoint.url in said and "curl -s" in said and str(endpoint.token_path) in said
    assert endpoint.token not in said
    served = person("%lepton predict diagnosis new_patients.csv")
    assert served["prediction"].to_list() == table["prediction"].to_list()
    version = person("lepton.models()")[0]
    assert (version.ref, version.aliases, version.verdict) == ("Net@1", ("champion",), "PASS")
    assert set(person("lepton.load('Net').weights")) == {
        f"layers.{at}.{w}" for at in (0, 2) for w in ("weight", "bias")
    }
    assert person("%lepton show diagnosis").name == "diagnosis"
    _what_is_exported(person, capsys)
    assert "could be a model or a endpoint" not in person.refused("%lepton predict Nett new_patients.csv")
    _what_is_refused(person)
    _what_the_shell_says()


def _what_is_exported(person: Typing, capsys: pytest.CaptureFixture[str]) -> None:
    made = person("made = %lepton export Net@1 --format kserve --to cluster --image registry.local/net:1\nmade")
    assert (made.version, made.digest, made.size_bytes) == ("Net@1", "", 0)
    assert "kubectl apply" in capsys.readouterr().out
    again = person("lepton.export('Net@champion', to='cluster', format='kserve', image='registry.local/net:2')")
    assert "net:2" in (again.path / "inference_service.yaml").read_text()
    image = person("lepton.export(lepton.models()[0], to='image')")
    assert image.digest.startswith("sha256:") and 50e6 < image.size_bytes < 300e6
    Path("image/mine.txt").write_text("")
    assert "mine.txt" in person.refused("%lepton export Net --to image")


def _what_is_refused(person: Typing) -> None:
    n_runs = len(person("lepton.runs()"))
    person("other = lepton.load('wdbc'); wdbc = other")
    assert "dataset/wdbc" in person.refused("%lepton train Net --data wdbc")
    assert "--target" in person.refused("%lepton train Net --data dataset/wdbc --target x")
    assert "Did you mean 'Net'" in person.refused("%lepton train Nte --data dataset/wdbc")
    assert "--name" in person.refused("%lepton train Net --data other --target diagnosis")
    assert "Did you mean 'test'" in person.refused("%lepton evaluate Net --data wdbc:tset")
    assert "Did you mean 'roc_auc'" in person.refused('%lepton evaluate Net --require "roc_acu > 0.9"')
    assert "does not guess" in person.refused("%lepton delete Net")
    assert "one at a time" in person.refused("%lepton delete model/Net")
    assert "diagnosis" in person.refused("%lepton delete model/Net@1")
    assert "Known: Net@1" in person.refused("%lepton promote Net")
    assert "no kind of table" in person.refused("%lepton predict Net new_patients.csv --to scored.xls")
    assert "unknown_word" in person.refused("lepton.evaluate('Net', unknown_word=1)")
    assert "Known: Net" in person.refused("%lepton deploy Missing --as x")
    assert "'x' serves nothing" in person.refused("%lepton deploy Net --as x --canary 0.1")
    assert "serves Net@1 already" in person.refused("%lepton deploy Net --as diagnosis --shadow")
    assert "not both" in person.refused("%lepton deploy Net --as diagnosis --shadow --canary 0.1")
    assert len(person("lepton.runs()")) == n_runs
    assert len(person("lepton.datasets()")) == 1


def _what_the_shell_says() -> None:
    def shell(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "lepton_jupyter.faces.cli", *words]
        return subprocess.run(argv, capture_output=True, text=True, env=dict(os.environ), check=False)

    failed = shell("evaluate", "Net", "--require", "accuracy <= 0.2")
    assert failed.returncode == 1
    assert "FAIL" in failed.stdout
    assert "Net@1" in shell("models").stdout
    wrong = shell("deploy", "Net", "--as", "diagnosis")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("LeptonError: Net@1 failed its evaluation")
    assert "Traceback" not in wrong.stderr
    wrong = shell("export", "Net", "--to", "other")
    assert wrong.stderr.startswith("LeptonError: Net@1 failed its evaluation (FAIL): it is not exported.")
    assert not Path("other").exists()


def test_a_notebook_is_run_with_parameters_and_its_error_says_where(person: Typing, tmp_path: Path) -> None:
    _notebook(tmp_path / "report.ipynb", "n = 1", "print('n is', n)\nassert n < 5, n")
    run = person("run = %lepton run report.ipynb -p n=3 --to done.ipynb\nrun")
    assert run.state == "completed"
    assert "n is 3" in (tmp_path / "done.ipynb").read_text()
    said = person.refused("%lepton run report.ipynb -p n=7")
    assert "AssertionError: 7" in said and "assert n < 5" in said and "Log: " in said
    assert "Did you mean 'report.ipynb'" in person.refused("%lepton run reprot.ipynb")


def test_a_cell_is_a_run_that_can_be_followed_stopped_and_read(person: Typing) -> None:
    person("SCALE = 2.0")
    run = person(PROGRAM)
    assert (run.state, round(run.metrics["loss"], 3)) == ("completed", 0.667)
    assert "done" in run.notebook.read_text()
    said = person.refused("%%lepton train --name prog\nlepton.log(loss=1)\n1 / 0")
    assert "ZeroDivisionError" in said and "----> 2 1 / 0" in said
    assert "empty" in person.refused("%%lepton train --name prog\n\n")
    slow = person("%%lepton train --name slow --detach\nimport time\ntime.sleep(120)")
    assert slow.state in ("queued", "starting", "running")
    assert person(f"%lepton stop run/{slow.run_id}").state == "stopped"
    assert slow.state == "stopped"
    other = person(PROGRAM)
    compared = person(f"%lepton compare run/{slow.run_id} run/{run.run_id} run/{other.run_id}")
    assert "state" in repr(compared)
    assert [len(line) for line in compared.curves["loss"].values()] == [3, 3]
    assert len(compared) == 3
