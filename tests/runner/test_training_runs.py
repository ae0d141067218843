"""Training runs in real kernels, from the payload to the bundle, without a backend."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.bundle import open_bundle
from lepton_jupyter.runner.capture import capture_names
from lepton_jupyter.runner.request import stage_notebook
from lepton_jupyter.stages.data.ingest import add
from lepton_jupyter.stages.data.spec import Data
from tests.runner.conftest import StartedRun

pytestmark = pytest.mark.slow

HELPERS = "import time\nimport torch\nfrom torch import nn\nWIDTH = 4\ndef bend(x):\n    return torch.relu(x)"
NET = """class Net(nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.inner = nn.Linear(n_features, WIDTH)
        self.outer = nn.Linear(WIDTH, n_outputs)
        self.n_seen = 0
    def forward(self, x):
        {before}
        return self.outer(bend(self.inner(x)))
"""
STUCK = """if self.training and torch.is_grad_enabled():
            self.n_seen += 1
            time.sleep(60 if self.n_seen > 40 else 0)"""


@pytest.fixture
def train(
    start: Callable[..., StartedRun], home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., StartedRun]:
    """Start a training of Net on a small table."""
    monkeypatch.chdir(tmp_path)
    rows = "\n".join(f"{i % 17},{i * i % 7},{'p' if i % 17 > 8 else 'q'}" for i in range(120))
    (tmp_path / "t.csv").write_text(f"a,b,y\n{rows}\n")
    record, _ = add(home, Data(name="t", source="t.csv", target=("y",)))

    def begin(net: str, **spec: Any) -> StartedRun:
        shell = InteractiveShell()
        shell.run_cell(HELPERS, store_history=True).raise_error()
        shell.run_cell(net, store_history=True).raise_error()
        captured = capture_names({"model": "Net"}, shell.user_ns)
        asked = {"model": "Net", "data": f"t@{record.version}", "name": "Net", "batch_size": 32, **spec}
        return start(
            notebook=stage_notebook("train", title="Net", source=captured.source),
            captured=captured,
            kind="train",
            model="Net",
            dataset=asked["data"],
            spec=asked,
            parameters={"epochs": spec.get("epochs", 20)},
        )

    return begin


def test_a_class_of_the_notebook_is_trained_into_a_bundle(train: Callable[..., StartedRun]) -> None:
    run = train(NET.format(before="pass"), epochs=3)
    end = run.end()
    assert end["state"] == "completed", (end, run.folder.log.read_text())
    assert open_bundle(run.folder.bundle).card.is_deployable
    losses = [event["values"]["val_loss"] for event in run.told() if "val_loss" in event.get("values", {})]
    assert len(losses) == 3
    text = "".join("".join(cell["source"]) for cell in json.loads(run.folder.notebook.read_bytes())["cells"])
    assert "class Net(nn.Module):" in text and "def bend(x):" in text
    assert not run.folder.reserve.exists()


def test_an_error_in_forward_names_the_users_cell_and_line(train: Callable[..., StartedRun]) -> None:
    error = train(NET.format(before="x = x.reshape(3, 5, 7)"), epochs=3).end()["error"]
    shown = error["message"] + error["hint"] + error["detail"]
    assert "In[2]" in shown and "line 8" in shown and "reshape(3, 5, 7)" in shown


def test_a_stopped_training_keeps_its_best_checkpoint(
    train: Callable[..., StartedRun], eventually: Callable[..., Any]
) -> None:
    run = train(NET.format(before="time.sleep(0.005)"), epochs=5000)
    eventually(lambda: sum(event["kind"] == "metric" for event in run.told()) >= 2, timeout_s=60)
    run.process.terminate()
    assert run.end()["state"] == "stopped"
    assert open_bundle(run.folder.bundle).card.stopped_at
    assert set(run.statuses()) == {"completed"}


def test_a_training_whose_kernel_had_to_be_killed_is_bundled_by_a_second_one(
    train: Callable[..., StartedRun], eventually: Callable[..., Any]
) -> None:
    run = train(NET.format(before=STUCK), epochs=5000)
    eventually(lambda: sum(event["kind"] == "metric" for event in run.told()) >= 8, timeout_s=60)
    sleep(1)  # it is stuck in a step by now
    run.process.terminate()
    sleep(0.5)
    run.process.terminate()  # as if the grace were over
    end = run.end()
    assert end["state"] == "stopped", end
    assert open_bundle(run.folder.bundle).card.stopped_at, end
    assert "stopped" in run.statuses() and "running" not in run.statuses()
