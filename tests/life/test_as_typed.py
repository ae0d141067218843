"""What was typed is what is trained: files, environment and helpers as they were at Enter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.core.paths import Home
from tests.life.conftest import Notebook

pytestmark = pytest.mark.slow

HELPERS = """
import os, mylib
SCALE = 3.0
def helper(x):
    return x * SCALE
"""

NET = """
from torch import nn
class Net(nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        print("MYLIB", mylib.VALUE, "SCALE", helper(1.0), "FILE", open("data/x.csv").read().strip(),
              "URL", len(os.environ["DB_URL"]))
        self.linear = nn.Linear(n_features, n_outputs)
    def forward(self, x):
        return self.linear(x)
"""


def test_edits_after_enter_do_not_change_a_queued_run(
    new_notebook: Callable[..., Notebook],
    home: Home,
    tmp_path: Path,
    client: Any,
    eventually: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = "postgres://user:correct-horse-battery@db/x"
    monkeypatch.setenv("LEPTON_CPU_SLOTS", "1")
    folder = tmp_path / "work"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "x.csv").write_text("as it was")
    (folder / "mylib.py").write_text("VALUE = 'before'\n")
    (folder / "blocker.py").write_text("")
    table = "\n".join(["a,b,y", *(f"{i},{i * i % 7},{'p' if i % 3 else 'q'}" for i in range(60))])
    (folder / "t.csv").write_text(table)
    notebook = new_notebook(folder)
    notebook.run(f"import os; os.environ['DB_URL'] = {secret!r}")
    notebook.run("%lepton data t t.csv --target y")
    notebook.run(HELPERS)
    notebook.run(NET)
    notebook.run("%%lepton train --name wait --detach\nimport time; time.sleep(6)")  # holds the only slot
    notebook.run("run = %lepton train Net --data t --epochs 2 --detach")
    (folder / "mylib.py").write_text("VALUE = 'after'\n")
    notebook.run("SCALE = 99.0")
    run_id = notebook.run("print(run.run_id)").strip()
    ended = eventually(
        lambda: (v := client().run(run_id)).state in ("completed", "failed") and v, timeout_s=60, what="ends"
    )
    assert ended.state == "completed", ended.error
    printed = home.run(run_id).notebook.read_text() + home.run(run_id).log.read_text()
    assert "MYLIB before SCALE 3.0 FILE as it was" in printed

    holders = [path for path in home.root.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert {path.name for path in holders} == {"environment.json"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in holders)
