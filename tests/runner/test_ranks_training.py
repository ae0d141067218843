"""``%lepton train Net --devices 2`` in real kernels with real ranks, without a backend."""

from __future__ import annotations

import json
import os
import re
import signal
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

pytestmark = pytest.mark.slow

NET = """import os, time, torch
from torch import nn
class Net(nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(n_features, 4), nn.ReLU(), nn.Linear(4, n_outputs))
        self.n_seen = 0
    def forward(self, x):
        if self.training and torch.is_grad_enabled():
            self.n_seen += 1
            {before}
        return self.net(x)
"""
LONG_S = 200
LINE = 10  # of what goes in the place of {before}


@pytest.fixture
def train(
    start: Callable[..., StartedRun], home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., StartedRun]:
    """Start a training of Net on a small table and two CPU slots."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEPTON_DEVICES", "cpu-0,cpu-1")
    rows = "\n".join(f"{i % 17},{i * i % 7},{'p' if i % 17 > 8 else 'q'}" for i in range(120))
    (tmp_path / "t.csv").write_text(f"a,b,y\n{rows}\n")
    record, _ = add(home, Data(name="t", source="t.csv", target=("y",)))

    def begin(before: str, **spec: Any) -> StartedRun:
        shell = InteractiveShell()
        shell.run_cell(NET.format(before=before), store_history=True).raise_error()
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


def metrics(run: StartedRun) -> list[tuple[int, dict[str, float]]]:
    return [(event["step"], event["values"]) for event in run.told() if event["kind"] == "metric"]


def end_of(run: StartedRun) -> dict[str, Any]:
    """Wait for the end of a run that starts several processes, perhaps more than once."""
    run.process.wait(timeout=LONG_S)
    return run.end()


def notes(run: StartedRun) -> dict[str, Any]:
    return {event["key"]: event["value"] for event in run.told() if event["kind"] == "note"}


def test_a_rank_that_is_killed_costs_one_restart_and_no_epoch(train: Callable[..., StartedRun], tmp_path: Path) -> None:
    once = tmp_path / "once"
    die = (
        f"if os.environ['RANK'] == '1' and self.n_seen == 25 and not os.path.exists({str(once)!r}):"
        f" open({str(once)!r}, 'w').close(); os.kill(os.getpid(), 9)"
    )
    run = train(die, epochs=12, checkpoint_every_s=1e-9)
    end = end_of(run)
    assert end["state"] == "completed" and once.exists(), (end, run.folder.log.read_text())
    assert notes(run)["ranks"] == 2 and notes(run)["restarts"] == 1
    assert notes(run)["restart_reason"] == "Rank 1 was killed by the system (SIGKILL), perhaps for memory"
    assert [step for step, _ in metrics(run)] == list(range(1, 13))
    card = open_bundle(run.folder.bundle).card
    assert card.is_deployable and card.epochs == 12, card.why_not


def test_a_rank_that_always_dies_fails_the_run_with_the_reason(train: Callable[..., StartedRun]) -> None:
    die = "os.environ['RANK'] == '1' and os.kill(os.getpid(), 9) if 'RANK' in os.environ else None"
    error = end_of(train(die, epochs=2))["error"]
    assert error["message"] == "Rank 1 was killed by the system (SIGKILL), perhaps for memory."
    assert "began again 2 times" in error["hint"]


def test_an_error_in_a_rank_names_the_users_cell_and_line(train: Callable[..., StartedRun]) -> None:
    run = train("if os.environ.get('RANK') == '1' and self.n_seen == 3: x.reshape(3, 5, 7)", epochs=2)
    error = end_of(run)["error"]
    assert f"Cell In[1], line {LINE + 1}, in Net.forward" in error["message"] and "[rank 1]" in error["message"]
    assert "reshape(3, 5, 7)" in error["detail"] and "site-packages/torch/distributed" not in error["message"]
    outputs = [o for c in json.loads(run.folder.notebook.read_bytes())["cells"] for o in c.get("outputs", [])]
    text = "\n".join(line for o in outputs if o["output_type"] == "error" for line in o["traceback"])
    assert "reshape(3, 5, 7)" in re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_an_error_of_ours_in_the_ranks_is_two_lines(train: Callable[..., StartedRun]) -> None:
    error = end_of(train("x = x * (float('nan') if self.n_seen == 4 else 1.0)", epochs=2))["error"]
    assert re.fullmatch(r"The loss became NaN at step \d of 3 in epoch \d of 2\.", error["message"]), error
    assert "--lr" in error["hint"]


def test_a_stop_ends_sharded_ranks_after_a_step_and_keeps_the_best(
    train: Callable[..., StartedRun], eventually: Callable[..., Any]
) -> None:
    run = train("time.sleep(0.005)", epochs=5000, shard=True)
    eventually(lambda: len(metrics(run)) >= 2, timeout_s=90)
    os.kill(run.process.pid, signal.SIGTERM)
    assert end_of(run)["state"] == "stopped", run.folder.log.read_text()
    card = open_bundle(run.folder.bundle).card
    assert card.stopped_at and card.is_deployable, card.why_not
    assert set(run.statuses()) == {"completed"}
