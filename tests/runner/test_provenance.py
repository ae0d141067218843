"""What a run says of its origin: real repositories, and nothing of them is run or written."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lepton_jupyter.runner.provenance import git_line, git_state, packages


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=main")
    return subprocess.run(("git", *who, *words), cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "net.py").write_text("x = 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def test_a_commit_and_whether_files_were_changed_since_are_known(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    below = repository / "a"
    below.mkdir()
    (below / "new.txt").write_text("not kept")
    assert git_state(below) == {"commit": commit, "branch": "main", "is_dirty": False}
    (repository / "net.py").write_text("x = 2\n")
    found = git_state(below)
    assert found["is_dirty"] is True
    assert git_line(found) == f"{commit[:10]} on main, with changes"


def test_nothing_of_the_repository_is_run_and_its_index_stays(repository: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    script = repository / ".git" / "hooks" / "monitor"
    script.write_text(f"#!/bin/sh\ntouch '{ran}'\n")
    script.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(script))
    index = repository / ".git" / "index"
    os.utime(repository / "net.py", (1, 1))
    before = index.read_bytes()
    assert git_state(repository)["is_dirty"] is False
    assert not ran.exists()
    assert index.read_bytes() == before


def test_no_repository_and_no_git_are_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_state(tmp_path) == {}
    assert git_line({}) == ""
    (tmp_path / ".git").mkdir()  # not really one
    assert git_state(tmp_path) == {}
    monkeypatch.setenv("PATH", "")
    assert git_state(tmp_path) == {}


def test_packages_that_decide_a_result_are_known() -> None:
    import torch

    assert packages()["torch"] == torch.__version__.partition("+")[0] or packages()["torch"] == torch.__version__
    assert set(packages()) >= {"python", "numpy", "polars"}
