"""Nothing of a home is left running."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.backend.keeper import holder
from lepton_jupyter.client.client import Client
from lepton_jupyter.client.shutdown import shut_down
from lepton_jupyter.core.paths import Home, new_run_id
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.runner.request import prepare_run

CELL = {
    "cell_type": "code",
    "id": "c",
    "metadata": {},
    "source": "import time\nwhile True: time.sleep(0.1)",
    "outputs": [],
    "execution_count": None,
}


def ours(home: Home) -> list[str]:
    """Return the commands of the processes whose arguments name this home."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            argv = (folder / "cmdline").read_bytes() if folder.name.isdigit() else b""
        except OSError:
            continue
        if os.fsencode(home.root) in argv or os.fsencode(home.runtime().root) in argv:
            found.append(argv.replace(b"\0", b" ").decode())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("is_backend_dead", [False, True])
def test_shut_down_ends_runs_backend_and_keeper(
    is_backend_dead: bool, home: Home, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    record = RunRecord(
        run_id=new_run_id(),
        kind="notebook",
        title="forever",
        created_at=time.time(),
        python=sys.executable,
        cwd=str(tmp_path),
    )
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [CELL]}
    prepare_run(home, record, notebook=notebook, captured=None, environment=os.environ)
    client = Client.connect(home)
    client.submit(record.run_id)
    eventually(lambda: client.run(record.run_id).state == "running", timeout_s=30)
    runtime = home.runtime()
    if is_backend_dead:
        for lock in (runtime.keeper_lock, runtime.backend_lock):
            who = holder(lock)
            assert who is not None and who.send(signal.SIGKILL)
    shut_down(home)
    assert ours(home) == []
    assert not runtime.root.exists()
    shut_down(home)  # once more is no harm


def test_shut_down_of_a_home_that_never_ran_does_nothing(home: Home) -> None:
    shut_down(home)
    assert not home.runtime().root.exists()
    assert (
        json.dumps(sorted(path.name for path in home.root.iterdir()))
        == '["bundles", "datasets", "endpoints", "runs", "schedules"]'
    )
