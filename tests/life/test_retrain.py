"""A model is trained again on rows of a new kind: better becomes champion, worse does not, and why is told."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_jupyter.core.paths import Home
from tests.life.conftest import EXAMPLES, NET, CellError, Notebook

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
    assert "TumorNet@2 became champion: promoted by retrain" in card
    assert "by the recipe of run" in card

    again = notebook.run("done = %lepton retrain TumorNet", timeout_s=CELL_S)
    assert "nothing new" in again
    assert len(client().models()) == 2


def test_a_worse_model_is_not_promoted_and_the_journal_says_why(clinic: tuple[Notebook, Path], client: Any) -> None:
    notebook, source = clinic
    append_rows(source, 1500, is_truthful=False)
    shown = notebook.run("done = %lepton retrain TumorNet", timeout_s=CELL_S)
    assert "not promoted" in shown
    assert notebook.run("print(done.decision, done.version, done.champion)").strip() == "keep TumorNet@2 TumorNet@1"
    assert client().version("TumorNet@champion").ref == "TumorNet@1"
    reason = notebook.run("print(done.reason)").strip()
    assert reason.startswith("TumorNet@2 misses what is required: accuracy >= 0.8: FAIL, measured 0.")
    assert reason in "\n".join(entry.text for entry in client().journal("TumorNet"))
    assert f"not promoted: {reason}" in notebook.run("%lepton show TumorNet")
    assert f"not promoted: {reason}" in notebook.run("print([entry.text for entry in lepton.models()[0].journal])")
    # the same rows make the same model: it is not tried again each night
    assert "It was judged FAIL and is not the champion." in notebook.run("%lepton retrain TumorNet", timeout_s=CELL_S)
    assert len(client().models()) == 2


def test_with_approve_a_better_model_waits_for_a_person(clinic: tuple[Notebook, Path], client: Any) -> None:
    notebook, source = clinic
    append_rows(source, 1500)
    shown = notebook.run("done = %lepton retrain TumorNet --approve", timeout_s=CELL_S)
    assert "waits for you" in shown
    assert "%lepton promote TumorNet@2 champion" in shown
    assert client().version("TumorNet@champion").ref == "TumorNet@1"
    notebook.run("%lepton promote TumorNet@2 champion")
    texts = [entry.text for entry in client().journal("TumorNet")]
    assert texts[-1].startswith("TumorNet@2 became champion: promoted by ")
    assert any(text.startswith("waits for you: TumorNet@2 is better than TumorNet@1") for text in texts)


def test_where_there_is_no_champion_meeting_what_is_required_is_enough(
    new_notebook: Callable[..., Notebook], client: Any, tmp_path: Path
) -> None:
    source = tmp_path / "clinic.csv"
    source.write_bytes((EXAMPLES / "breast_cancer.csv").read_bytes())
    notebook = new_notebook(tmp_path)
    notebook.run("%lepton data clinic clinic.csv --target diagnosis")
    notebook.run(NET)
    notebook.run("%lepton train TumorNet --data clinic --epochs 15 --lr 1e-2", timeout_s=CELL_S)
    assert "FAIL" in notebook.run('%lepton evaluate TumorNet --require "accuracy >= 1"', timeout_s=CELL_S)
    append_rows(source, 600)
    shown = notebook.run(
        'done = %lepton retrain TumorNet --require "accuracy >= 0.8"\nprint(done.decision, done.champion)',
        timeout_s=CELL_S,
    )
    assert "promote None" in shown
    assert "TumorNet@2 has no champion to beat, and it meets accuracy >= 0.8." in shown
    assert client().version("TumorNet@champion").ref == "TumorNet@2"


SLEEPY = NET.replace(
    "        return self.layers(x)",
    "        import pathlib, time\n"
    "        time.sleep(0.2 if pathlib.Path('slow').exists() else 0)\n"
    "        return self.layers(x)",
)


def test_stopping_a_retrain_stops_its_training_and_leaves_the_champion(
    new_notebook: Callable[..., Notebook], client: Any, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    source = tmp_path / "clinic.csv"
    source.write_bytes((EXAMPLES / "breast_cancer.csv").read_bytes())
    notebook = new_notebook(tmp_path)
    notebook.run("%lepton data clinic clinic.csv --target diagnosis")
    notebook.run(SLEEPY)
    notebook.run("%lepton train TumorNet --data clinic --epochs 15 --lr 1e-2", timeout_s=CELL_S)
    notebook.run('%lepton evaluate TumorNet --require "accuracy >= 0.8"', timeout_s=CELL_S)
    append_rows(source, 1500)
    (tmp_path / "slow").touch()
    notebook.run("run = %lepton retrain TumorNet --detach", timeout_s=CELL_S)
    run = client().runs("retrain")[0]

    _stop_inside(client(), run.run_id, "train", eventually)
    assert client().version("TumorNet@champion").ref == "TumorNet@1"
    assert any(entry.text.startswith("retrain stopped") for entry in client().journal("TumorNet"))

    (tmp_path / "slow").unlink()  # what was stopped half-way does not count: the rows are still new
    notebook.run("run = %lepton retrain TumorNet --detach", timeout_s=CELL_S)
    _stop_inside(client(), client().runs("retrain")[0].run_id, "evaluate", eventually)
    made = client().models()[0]
    assert (made.dataset, made.remark, made.verdict) == ("clinic@2", "", "")

    notebook.run("done = %lepton retrain TumorNet", timeout_s=CELL_S)  # it is judged: no need to train it again
    assert notebook.run("print(done.decision, done.version)").strip() == f"promote {made.ref}"


def _stop_inside(client: Any, run_id: str, kind: str, eventually: Callable[..., Any]) -> None:
    """Stop a retrain as soon as the run of a kind that it asked for works; both end."""

    def nested() -> Any:
        found = [each for each in client.runs(kind) if each.parent == run_id and each.state == "running"]
        return found[0] if found and (found[0].metrics or kind != "train") else None

    inner = eventually(nested, timeout_s=CELL_S, what=f"a run inside it to {kind}")
    client.stop_run(run_id, "the test asked for it")
    for each in (run_id, inner.run_id):
        ended = eventually(lambda i=each: (v := client.run(i)).ended_at and v, timeout_s=CELL_S, what="its end")
        assert ended.state == "stopped", ended


SAVED = """
from sklearn.linear_model import LogisticRegression
rows = lepton.load("clinic:train").to_pandas()
names = [name for name in rows if name != "diagnosis"]
_ = lepton.save(LogisticRegression(max_iter=5000).fit(rows[names], rows["diagnosis"]), name="saved", data="clinic")
"""


def test_what_cannot_be_retrained_is_refused_before_anything_runs(
    clinic: tuple[Notebook, Path], client: Any, home: Home
) -> None:
    notebook, source = clinic
    n_runs = len(client().runs("retrain"))

    def refused(line: str) -> str:
        with pytest.raises(CellError) as caught:
            notebook.run(line, timeout_s=CELL_S)
        return str(caught.value)

    assert "Did you mean 'TumorNet'?" in refused("%lepton retrain TumorNett")
    assert "names a version; retrain takes the model" in refused("%lepton retrain TumorNet@1")
    assert "Did you mean 'accuracy'?" in refused('%lepton retrain TumorNet --require "acuracy > 0.9"')
    assert "--overlap belongs to a schedule" in refused("%lepton retrain TumorNet --overlap queue")
    notebook.run(SAVED, timeout_s=CELL_S)
    assert "saved@1 cannot be trained again by itself: it was saved from a notebook" in refused(
        '%lepton retrain saved --require "accuracy >= 0.5"'
    )
    notebook.run("table = lepton.load('clinic')")
    notebook.run("%lepton train TumorNet --name once --data table --target diagnosis --epochs 1", timeout_s=CELL_S)
    assert "was made from the variable 'table'" in refused('%lepton retrain once --require "accuracy >= 0.5"')
    notebook.run("%lepton train TumorNet --name loose --data clinic --epochs 1", timeout_s=CELL_S)
    said = refused("%lepton retrain loose")
    assert "Nothing says what a new loose must meet: loose@1 was never evaluated." in said
    assert '%lepton retrain loose --require "roc_auc >= 0.9"' in said
    source.rename(source.with_name("elsewhere.csv"))
    assert f"is gone: there is no '{source}'" in refused("%lepton retrain TumorNet")
    assert len(client().runs("retrain")) == n_runs


def test_a_retrain_on_a_schedule_does_what_was_defined(clinic: tuple[Notebook, Path], client: Any, home: Home) -> None:
    notebook, source = clinic
    notebook.run("%lepton deploy TumorNet@champion --as diagnosis", timeout_s=CELL_S)
    notebook.run("import os; os.environ['OPS'] = 'json://127.0.0.1:9'")
    notebook.run('%lepton monitor diagnosis --every 1d --alert "psi > 0.2" --on-alert retrain --notify env:OPS')
    asked = client().schedule("retrain-TumorNet")
    assert (asked.every, asked.next_due_at, asked.notify) == ("", None, ("env:OPS",))
    assert "1d" in notebook.run("%lepton retrain TumorNet --every 1d --approve")
    notebook.run('%lepton monitor diagnosis --every 1d --alert "psi > 0.3" --on-alert retrain')
    assert client().schedule("retrain-TumorNet").every == "1d"  # it has a clock of its own: left as it is

    notebook.run("evaluation = lepton.evaluate('TumorNet')", timeout_s=CELL_S)  # requires nothing, and changes nothing
    append_rows(source, 1500)
    notebook.run("fired = lepton.tick('retrain-TumorNet')", timeout_s=CELL_S)
    run = client().runs("retrain")[0]
    assert (run.schedule, run.state, run.result["decision"]) == ("retrain-TumorNet", "completed", "ask")
    assert run.result["reason"].endswith("and it meets accuracy >= 0.8.")
    assert client().schedule("retrain-TumorNet").last.verdict == "waits for you"

    recipe = home.run(client().version("TumorNet@1").run_id)
    gone = "/gone/bin/python"
    recipe.record.write_text(recipe.record.read_text().replace(sys.executable, gone))
    why = f"TumorNet@1 cannot be trained again by itself: the interpreter '{gone}' that trained it is gone."
    notebook.run("fired = lepton.tick('retrain-TumorNet')", timeout_s=CELL_S)
    failed = client().runs("retrain")[0]
    assert (failed.state, failed.error.message) == ("failed", why)
    assert f"retrain failed: {why}" in [entry.text for entry in client().journal("TumorNet")]
    with pytest.raises(CellError, match="is gone"):
        notebook.run("%lepton retrain TumorNet --every 2d")
    assert client().schedule("retrain-TumorNet").every == "1d"
