"""``%%lepton train --devices 2`` cells: real kernels, real ranks."""

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

from lepton_jupyter.core.processes import Identity
from lepton_jupyter.runner.capture import capture_cell
from lepton_jupyter.runner.request import cell_notebook
from tests.runner.conftest import StartedRun

pytestmark = pytest.mark.slow

Start = Callable[..., StartedRun]
GROUP = """
import os
import torch.distributed as dist
from lepton_jupyter.runner import session
dist.init_process_group("gloo")
"""


@pytest.fixture
def two(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Start a cell on two CPU slots: ``two("print(1)")``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEPTON_DEVICES", "cpu-0,cpu-1")

    def begin(cell: str, shell: InteractiveShell | None = None) -> StartedRun:
        captured = capture_cell(cell, shell.user_ns if shell is not None else {})
        return start(
            notebook=cell_notebook(cell, "t"), captured=captured, kind="cell", model="t", spec={"name": "t"}
        )  # fmt: skip

    return begin


def printed(run: StartedRun) -> str:
    cells = json.loads(run.folder.notebook.read_bytes())["cells"]
    return "".join(o.get("text", "") for c in cells for o in c.get("outputs", []))


def metrics(run: StartedRun) -> list[tuple[int, dict[str, float]]]:
    return [(e["step"], e["values"]) for e in run.told() if e["kind"] == "metric"]


def notes(run: StartedRun) -> dict[str, Any]:
    return {e["key"]: e["value"] for e in run.told() if e["kind"] == "note"}


def test_a_cell_runs_once_a_rank_and_logs_each_step_once(two: Start) -> None:
    shell = InteractiveShell()
    shell.run_cell("SCALE = 10\ndef scaled(x):\n    return x * SCALE", store_history=True)
    cell = GROUP + (
        "import torch\nfor step in range(1, 4):\n"
        "    x = torch.tensor([float(scaled(dist.get_rank() + 1))])\n"
        "    dist.all_reduce(x)\n"
        "    session.log(step=step, total=x.item())\n"
        "print('hello from', dist.get_rank(), 'of', dist.get_world_size(), os.environ['LOCAL_RANK'])\n"
        "dist.barrier()\n"
        "{'shown': dist.get_rank()}"
    )
    run = two(cell, shell)
    end = run.end()
    assert end["state"] == "completed", (end, run.folder.log.read_text())
    assert metrics(run) == [(step, {"total": 30.0}) for step in (1, 2, 3)]
    assert notes(run)["ranks"] == 2
    assert printed(run) == "hello from 0 of 2 0\n"
    assert "[rank 1] hello from 1 of 2 1\n" in run.folder.log.read_text()
    outputs = json.loads(run.folder.notebook.read_bytes())["cells"][1]["outputs"]
    assert [o["data"]["text/plain"] for o in outputs if "data" in o] == ["{'shown': 0}"]
    assert json.loads(run.folder.notebook.read_bytes())["cells"][1]["source"] == cell


def test_an_error_in_a_rank_shows_that_ranks_line(two: Start) -> None:
    shell = InteractiveShell()
    shell.run_cell("def helper(x):\n    return 1 / x", store_history=True)
    cell = GROUP + "import torch\nif dist.get_rank() == 1:\n    helper(0)\ndist.all_reduce(torch.ones(1))"
    run = two(cell, shell)
    error = run.end()["error"]
    assert error["message"] == "ZeroDivisionError: division by zero (Cell In[1], line 2, in helper) [rank 1]"
    assert "return 1 / x" in error["detail"]
    outputs = json.loads(run.folder.notebook.read_bytes())["cells"][-1]["outputs"]
    shown = [o for o in outputs if o["output_type"] == "error"][-1]
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(shown["traceback"]))
    assert shown["ename"] == "ZeroDivisionError" and "In rank 1" in text and "helper(0)" in text


def test_a_rank_that_dies_names_itself_where_there_is_no_checkpoint(two: Start) -> None:
    cell = GROUP + (
        "import signal, torch\nif dist.get_rank() == 1:\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "dist.all_reduce(torch.ones(1))"
    )
    error = two(cell).end()["error"]
    assert error["message"] == "Rank 1 was killed by the system (SIGKILL), perhaps for memory."
    assert "lepton.checkpoint(state)" in error["hint"]


def test_ranks_die_with_their_kernel(two: Start, eventually: Callable[..., Any]) -> None:
    cell = GROUP + "import time\nsession.log(pid=os.getpid())\nfor _ in range(1200):\n    time.sleep(0.1)"
    run = two(cell)
    eventually(lambda: metrics(run), timeout_s=90)
    rank = Identity.of(int(metrics(run)[0][1]["pid"]))
    assert rank is not None and run.kernel is not None
    run.kernel.send(signal.SIGKILL)
    eventually(lambda: not rank.is_alive(), timeout_s=20)
    assert run.end()["state"] == "failed"


def test_a_stop_reaches_every_rank(two: Start, eventually: Callable[..., Any]) -> None:
    cell = GROUP + (
        "import time\nsession.log(step=1, a=1)\ntry:\n    for _ in range(1200):\n        time.sleep(0.1)\n"
        "except KeyboardInterrupt:\n    print('interrupted', dist.get_rank())\n    raise"
    )
    run = two(cell)
    eventually(lambda: metrics(run), timeout_s=90)
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.end()["state"] == "stopped"
    assert printed(run).startswith("interrupted 0")
    assert "[rank 1] interrupted 1" in run.folder.log.read_text()
