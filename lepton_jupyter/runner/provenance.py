"""What code and which packages a run comes from, as found when it is asked for."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "numpy", "polars", "scikit-learn", "onnx", "onnxruntime", "cloudpickle")
GIT_S = 0.5  # a repository that takes longer is recorded without knowing whether it was changed
# What a repository's configuration could start is shut off, and nothing is written to it.
GIT = (
    "git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}",
    "status", "--porcelain=v2", "--branch", "--untracked-files=no", "--ignore-submodules=all",
)  # fmt: skip


@cache
def packages() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that decide what a training gives."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, str | bool]:
    """Return the state of the repository that a folder is in; empty where it is in none.

    Returns
    -------
    dict
        ``commit``, ``branch``, and ``is_dirty``: whether files that it keeps were changed since.
    """
    if not any((place / ".git").exists() for place in (folder, *folder.parents)):
        return {}
    try:
        asked = subprocess.run(GIT, cwd=folder, capture_output=True, text=True, timeout=GIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    about: dict[str, str] = {}
    is_dirty = False
    for line in asked.stdout.splitlines():
        if line.startswith("# "):
            key, _, value = line[2:].partition(" ")
            about[key] = value
        else:
            is_dirty = True
    if asked.returncode != 0 or "branch.oid" not in about:
        return {}
    return {"commit": about["branch.oid"], "branch": about.get("branch.head", ""), "is_dirty": is_dirty}


def git_line(state: dict[str, str | bool]) -> str:
    """Return a state in words.

    Examples
    --------
    >>> git_line({"commit": "8c3f0ab77d15", "branch": "main", "is_dirty": True})
    '8c3f0ab77d on main, with changes'
    """
    if not state:
        return ""
    on = f" on {state['branch']}" if state.get("branch") not in (None, "", "(detached)") else ""
    return f"{str(state['commit'])[:10]}{on}{', with changes' if state.get('is_dirty') else ''}"
