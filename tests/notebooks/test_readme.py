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
CHINESE = (ROOT / "README.zh-CN.md").read_text()


def _blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def _uncommented(blocks: list[str]) -> list[str]:
    return [re.sub(r"\s+# .*", "", block) for block in blocks]


def test_the_table_of_verbs_is_the_structs_own() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", README, flags=re.MULTILINE))
    assert rows == {command.spec.verb: command.spec.does for command in COMMANDS}


def test_the_chinese_readme_has_the_same_blocks_verbs_and_chapters() -> None:
    for language in ("python", "sh"):
        assert _uncommented(_blocks(language, CHINESE)) == _uncommented(_blocks(language))
    verbs = [re.findall(r"^\| `([\w-]+)` \| .+ \|$", text, flags=re.MULTILINE) for text in (README, CHINESE)]
    assert verbs[0] == verbs[1]
    chapters = [len(re.findall("^##+ ", text, flags=re.MULTILINE)) for text in (README, CHINESE)]
    assert chapters[1] == chapters[0] + 1  # where widespread texts go wrong


@pytest.mark.parametrize("text", [README, CHINESE], ids=["english", "chinese"])
def test_every_picture_and_page_that_a_readme_names_is_there(text: str) -> None:
    named = [path for path in re.findall(r"\]\(([^)]+)\)", text) if "://" not in path]
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_block_of_the_readme_runs(new_notebook: Callable[..., Notebook], home: Home) -> None:
    notebook = new_notebook(EXAMPLES)
    try:
        for block in _blocks("python"):
            notebook.run(block, timeout_s=400)
    finally:
        for made in ("scored.parquet", "my_report.ipynb"):
            (EXAMPLES / made).unlink(missing_ok=True)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for line in "\n".join(_blocks("sh")).splitlines():
        if line.startswith("make "):  # run by hand and by CI: here only that make knows the target
            line = line.replace("make ", "make -n ")
        done = subprocess.run(line, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode in ((0, 3) if "evaluate" in line else (0,)), (line, done.stdout, done.stderr)
