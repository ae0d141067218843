"""Searches in real kernels that are stopped: the best trial so far becomes the version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

NET = """import threading
from pathlib import Path
from torch import nn
class Net(nn.Module):
    made = 0
    def __init__(self, n_features, n_outputs):
        super().__init__()
        Net.made += 1
        self.inner = nn.Linear(n_features, 4)
        self.outer = nn.Linear(4, n_outputs)
    def forward(self, x):
        {before}
        return self.outer(self.inner(x).relu())
"""
STUCK = """if Net.made > 4 and self.training:
            Path("stuck").touch()
            threading.Event().wait(1000)"""


@pytest.fixture
def tune(
    start: Callable[..., StartedRun], home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., StartedRun]:
    """Start a search over Net on a small table."""
    monkeypatch.chdir(tmp_path)
    rows = "\n".join(f"{i % 17},{i * i % 7},{'p' if i % 17 > 8 else 'q'}" for i in range(120))
    (tmp_path / "t.csv").write_text(f"a,b,y\n{rows}\n")
    record, _ = add(home, Data(name="t", source="t.csv", target=("y",)))

    def begin(net: str) -> StartedRun:
        shell = InteractiveShell()
        shell.run_cell(net, store_history=True).raise_error()
        captured = capture_names({"model": "Net"}, shell.user_ns)
        asked = {
            "model": "Net", "data": f"t@{record.version}", "name": "Net", "batch_size": 32, "epochs": 3,
            "search": ["lr=loguniform(1e-4,1e-1)"], "trials": 100000, "batched": "no",
        }  # fmt: skip
        return start(
            notebook=stage_notebook("tune", title="Net", source=captured.source),
            captured=captured,
            kind="tune",
            model="Net",
            dataset=asked["data"],
            spec=asked,
        )

    return begin


def n_ended(run: StartedRun) -> int:
    return sum(event["kind"] == "progress" and event["unit"] == "trials" for event in run.told())


def test_a_search_that_is_stopped_makes_a_version_of_its_best_trial(
    tune: Callable[..., StartedRun], eventually: Callable[..., Any]
) -> None:
    run = tune(NET.format(before="pass"))
    eventually(lambda: n_ended(run) >= 3, timeout_s=100)
    run.process.terminate()
    assert run.end()["state"] == "stopped", run.folder.log.read_text()
    assert "stopped: the best of" in open_bundle(run.folder.bundle).card.notes["remark"]
    assert set(run.statuses()) == {"completed"}
    assert run.folder.result.exists()


def test_where_its_kernel_had_to_be_killed_a_second_one_makes_it(
    tune: Callable[..., StartedRun], eventually: Callable[..., Any], tmp_path: Path
) -> None:
    run = tune(NET.format(before=STUCK))
    eventually((tmp_path / "stuck").exists, timeout_s=100)
    assert n_ended(run) >= 1
    run.process.terminate()  # it waits for ever, and is killed when its grace is over
    assert run.end()["state"] == "stopped"
    assert "stopped: the best of" in open_bundle(run.folder.bundle).card.notes["remark"]
    assert "stopped" in run.statuses()
