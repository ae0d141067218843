"""``--resume RUN``: a new run that goes on from another one's last checkpoint, or says why it cannot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.events import EventReader
from tests.life.conftest import SLOW_NET, CellError, Notebook

pytestmark = pytest.mark.slow

FLAGS = "--data wdbc --lr-scheduler constant"
SAME = """
import numpy as np
ours, theirs = lepton.load('TumorNet@2').weights, lepton.load('whole').weights
print(all(np.array_equal(ours[name], theirs[name]) for name in theirs))
"""


def test_a_run_that_goes_on_ends_as_one_that_was_never_parted(with_data: Notebook, home: Home, client: Any) -> None:
    with_data.run(f"first = %lepton train TumorNet {FLAGS} --epochs 3")
    with_data.run(f"second = %lepton train TumorNet {FLAGS} --epochs 5 --resume {{first.run_id}}")
    with_data.run(f"%lepton train TumorNet {FLAGS} --epochs 5 --name whole")
    second = client().runs(kind="train")[1]
    epochs = [e["step"] for _, e in EventReader(home.run(second.run_id).events).read() if e["kind"] == "metric"]
    assert (second.state, second.version, epochs) == ("completed", 2, [4, 5])
    best = client().runs(kind="train")[0].metrics
    assert second.metrics["val_loss"] == best["val_loss"]
    assert with_data.run(SAME).strip() == "True"


def test_a_stopped_cell_says_how_to_go_on_and_that_works(
    notebook: Notebook, client: Any, eventually: Callable[..., Any]
) -> None:
    notebook.run("%lepton data wdbc breast_cancer.csv --target diagnosis")
    notebook.run(SLOW_NET.format(pause=0.05))
    request = notebook.start(f"run = %lepton train TumorNet {FLAGS} --epochs 500 --batch-size 64")
    run = eventually(
        lambda: (runs := client().runs(kind="train")) and runs[0].progress.get("done", 0) >= 2 and runs[0],
        timeout_s=60,
    )
    notebook.interrupt()
    with pytest.raises(CellError, match=f"add --resume {run.run_id} to train on"):
        notebook.finish(request)
    done = client().run(run.run_id).progress["done"]
    notebook.run(f"%lepton train TumorNet {FLAGS} --epochs {done + 2} --batch-size 64 --resume {run.run_id}")
    assert client().runs(kind="train")[0].version == 2


def test_a_run_from_which_nothing_can_go_on_says_why(with_data: Notebook, home: Home, client: Any) -> None:
    with_data.run(f"first = %lepton train TumorNet {FLAGS} --epochs 2")
    run_id = client().runs(kind="train")[0].run_id

    def refused(flags: str, *words: str, model: str = "TumorNet") -> None:
        with pytest.raises(CellError) as caught:
            with_data.run(f"%lepton train {model} {flags}")
        text = str(caught.value)
        assert all(word in text for word in words), text
        assert len(client().runs(kind="train")) == 1

    refused(f"{FLAGS} --epochs 4 --resume ffffff", "No run named 'ffffff'")
    refused(f"{FLAGS} --epochs 2 --resume {run_id}", "all of its 2 epochs", "--epochs 4")
    refused(f"{FLAGS} --epochs 4 --name Other --resume {run_id}", "trained 'TumorNet'", "--name TumorNet")
    refused(f"{FLAGS} --epochs 4 --optimizer sgd --resume {run_id}", "--optimizer adamw", "not sgd")
    refused(f"{FLAGS} --epochs 4 -p hidden=7 --resume {run_id}", "nothing by -p", "'hidden': 7")
    with_data.run("%lepton data other breast_cancer.csv --target diagnosis --seed 3")
    refused(f"--data other --epochs 4 --resume {run_id} --name TumorNet", "wdbc@1", "other@1", "--data wdbc@1")
    judged = with_data.run(f"print(lepton.evaluate('{run_id}').run_id)").split()[-1]
    refused(f"{FLAGS} --epochs 4 --resume {judged}", "evaluate")
    _goes(home.datasets / "wdbc", lambda: refused(f"{FLAGS} --epochs 4 --resume {run_id}", "wdbc@1, which is gone"))
    folder = home.run(run_id)
    _goes(folder.checkpoints, lambda: refused(f"{FLAGS} --epochs 4 --resume {run_id}", "left no checkpoint"))
    _goes(folder.root, lambda: refused(f"{FLAGS} --epochs 4 --resume {run_id}", "are gone", str(folder.root)))


def _goes(path: Path, look: Callable[[], None]) -> None:
    """Look while a folder is not there."""
    away = path.with_name(f"{path.name}-away")
    shutil.move(path, away)
    try:
        look()
    finally:
        shutil.move(away, path)
