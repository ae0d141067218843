"""The README does what it says: its blocks run, its table of verbs is the structs' own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lepton_jupyter.core.paths import Home
from lepton_jupyter.faces.verbs import COMMANDS
from tests.life.conftest import EXAMPLES, Notebook
from tests.life.conftest import new_notebook as new_notebook  # a fixture

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_table_of_verbs_is_the_structs_own() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", README, flags=re.MULTILINE))
    assert rows == {command.spec.verb: command.spec.does for command in COMMANDS}


@pytest.mark.slow
def test_every_block_of_the_readme_runs(new_notebook: Callable[..., Notebook], home: Home) -> None:
    notebook = new_notebook(EXAMPLES)
    for block in _blocks("python"):
        notebook.run(block)
    (EXAMPLES / "scored.parquet").unlink(missing_ok=True)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for line in "\n".join(_blocks("sh")).splitlines():
        if line.startswith("make "):  # run by hand and by CI: here only that make knows the target
            line = line.replace("make ", "make -n ")
        done = subprocess.run(line, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode in ((0, 3) if "evaluate" in line else (0,)), (line, done.stdout, done.stderr)
