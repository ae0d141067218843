"""A model is trained again on rows of a new kind: better becomes champion, worse does not, and why is told."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_jupyter.core.paths import Home
from tests.life.conftest import EXAMPLES, NET, Notebook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CELL_S = 300  # the machine may be busy with other tests
SCALE = 1.6  # a new clinic's microscope measures larger nuclei


def append_rows(path: Path, n_rows: int, *, is_truthful: bool = True, seed: int = 0) -> None:
    """Append labelled rows of a new kind: the same patients, measured larger; or with their labels shuffled."""
    random = np.random.default_rng(seed)
    with (EXAMPLES / "breast_cancer.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    places = random.integers(0, len(rows), n_rows)
    values = np.array([[float(value) for value in rows[place][:-1]] for place in places])
    values = values * random.normal(1.0, 0.02, values.shape)
    values[:, :10] *= SCALE
    labels = [rows[place][-1] for place in places]
    if not is_truthful:
        random.shuffle(labels)
    with path.open("a", newline="") as file:
        csv.writer(file).writerows([*row, label] for row, label in zip(values.tolist(), labels, strict=True))


@pytest.fixture
def clinic(new_notebook: Callable[..., Notebook], tmp_path: Path) -> tuple[Notebook, Path]:
    """A notebook with a champion, and the file that its data came from."""
    folder = tmp_path / "work"
    folder.mkdir()
    source = folder / "clinic.csv"
    source.write_bytes((EXAMPLES / "breast_cancer.csv").read_bytes())
    notebook = new_notebook(folder)
    notebook.run("%lepton data clinic clinic.csv --target diagnosis")
    notebook.run(NET)
    notebook.run("%lepton train TumorNet --data clinic --epochs 15 --lr 1e-2", timeout_s=CELL_S)
    assert "PASS" in notebook.run('%lepton evaluate TumorNet --require "accuracy >= 0.8"', timeout_s=CELL_S)
    return notebook, source


def cells_of(run_id: str, home: Home) -> str:
    """Return everything that the executed notebook shows."""
    notebook = json.loads(home.run(run_id).notebook.read_text())
    return "\n".join(json.dumps(cell.get("outputs", [])) for cell in notebook["cells"])


def test_a_better_model_takes_the_champions_place_and_the_endpoint_follows(
    clinic: tuple[Notebook, Path], client: Any, home: Home
) -> None:
    notebook, source = clinic
    notebook.run("%lepton deploy TumorNet@champion --as diagnosis", timeout_s=CELL_S)
    append_rows(source, 1500)
    shown = notebook.run("done = %lepton retrain TumorNet", timeout_s=CELL_S)
    assert "promoted" in shown
    told = notebook.run(
        "print(done.decision, done.is_promoted, done.version, done.champion, done.dataset, done.n_new_rows)"
    )
    assert told.strip() == "promote True TumorNet@2 TumorNet@1 clinic@2 1500"
    assert "is better than TumorNet@1: accuracy differs by +" in notebook.run("print(done.reason)")
    assert client().version("TumorNet@champion").ref == "TumorNet@2"
    assert client().endpoint("diagnosis").version == "TumorNet@2"

    run = client().runs("retrain")[0]
    seen = cells_of(run.run_id, home)
    for text in (
        "clinic.csv, last read as clinic@1",
        "new version, 1500 new rows",
        "train TumorNet",
        "PASS",
        "promoted",
    ):
        assert text in seen, text
    nested = [each for each in client().runs() if each.parent == run.run_id]
    assert {each.kind for each in nested} == {"train", "evaluate"}

    card = notebook.run("%lepton show TumorNet")
    assert "TumorNet@2 became champion: retrain" in card
    assert "by the recipe of run" in card

    again = notebook.run("done = %lepton retrain TumorNet", timeout_s=CELL_S)
    assert "nothing new" in again
    assert len(client().models()) == 2
