"""Real supervisors and real kernels: how a run ends, and what its notebook says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Identity, is_held
from tests.runner.conftest import StartedRun

pytestmark = pytest.mark.slow

Start = Callable[..., StartedRun]
Wait = Callable[..., Any]


def _in_cell(run: StartedRun, wait: Wait, *, index: int = 0) -> Identity:
    """Wait until a cell runs and has printed; return the kernel."""
    wait(
        lambda: any(e["kind"] == "cell" and e["index"] == index and e["status"] == "running" for e in run.events()),
        what="the cell begins",
    )
    sleep(0.3)  # between the message and the first line of the cell there is nothing to look at
    kernel = run.kernel
    assert kernel is not None
    return kernel


def test_a_run_of_two_cells_completes(start: Start, home: Home, tmp_path: Path) -> None:
    run = start("x = 6", "print(x * 7)", parameters={"y": 3}, output="out/copy.ipynb")
    end = run.end()
    assert end["kind"] == "state" and end["state"] == "completed", (end, run.folder.log.read_text())
    states = [event["state"] for event in run.events() if event["kind"] == "state"]
    assert states == ["starting", "running", "completed"]
    assert run.statuses() == ["completed"] * 3  # papermill injected the parameters
    text = run.folder.notebook.read_text()
    assert "42" in text and "y = 3" in text
    assert (tmp_path / "out" / "copy.ipynb").read_bytes() == run.folder.notebook.read_bytes()
    assert not is_held(home.runtime().run_lock(run.folder.run_id))
    assert list(home.runtime().kernels.iterdir()) == []
