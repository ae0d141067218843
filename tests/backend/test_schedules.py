"""Schedules in real backends: defined, fired, paused, removed, gone on with after kill -9."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home, RunFolder, new_run_id
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.schedule import FiringView, ScheduleRecord
from lepton_jupyter.runner.request import read_record
from lepton_jupyter.runner.scheduled import source_hash

from .conftest import cells

pytestmark = pytest.mark.slow

Wait = Callable[..., Any]
Define = Callable[..., str]


@pytest.fixture
def define(home: Home, tmp_path: Path) -> Define:
    """Write a schedule's folder as a client does, around a notebook of these cells; return its generation."""

    def write(*sources: str, name: str = "report", environment: dict[str, str] | None = None, **more: Any) -> str:
        path = tmp_path / f"{name}.ipynb"
        if sources:
            path.write_text(json.dumps(cells(*sources)))
        record = ScheduleRecord(
            **{
                "name": name,
                "kind": "notebook",
                "subject": path.name,
                "python": sys.executable,
                "cwd": str(tmp_path),
                "created_at": time.time(),
                "notebook": str(path),
                "source_hash": source_hash(path),
                **more,
            }
        )
        generation = new_run_id()
        folder = home.schedule(name, generation)
        folder.root.mkdir(parents=True, mode=0o700)
        folder.environment.write_text(json.dumps({**os.environ, **(environment or {})}))
        folder.environment.chmod(0o600)
        folder.record.write_bytes(encode(record))
        return generation

    return write


def firings(home: Home, name: str) -> list[dict[str, Any]]:
    """Return the rows of a schedule's firings, oldest first."""
    with sqlite3.connect(f"file:{home.state_db}?mode=ro", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        found = connection.execute("SELECT * FROM firings WHERE schedule = ? ORDER BY due_at", [name])
        return [dict(row) for row in found]


def first_ended(client: Client, name: str) -> FiringView | None:
    """Return the first firing whose run has ended."""
    ended = [each for each in client.schedule(name).firings if each.run_state in ENDED]
    return ended[-1] if ended else None


def test_a_notebook_fires_at_its_due_time_in_its_own_folder_with_its_environment(
    home: Home, define: Define, eventually: Wait, tmp_path: Path
) -> None:
    client = Client.connect(home)
    cell = f"import os, pathlib; pathlib.Path({str(tmp_path / 'seen')!r}).write_text(os.getcwd() + region + os.environ['R'])"
    generation = define(cell, every="1s", parameters={"region": " north"}, environment={"R": "!"})
    view = client.define_schedule("report", generation)
    assert (view.state, view.every) == ("active", "1s")
    last = eventually(lambda: first_ended(client, "report"))
    client.pause_schedule("report")
    assert (tmp_path / "seen").read_text() == f"{tmp_path} north!"
    record = read_record(RunFolder(home.run(last.run_id).root))
    assert (record.schedule, record.due_at, record.asked_by) == ("report", last.due_at, "schedule")
    assert view.next_due_at is not None and last.due_at >= view.next_due_at
    assert last.run_state == "completed"
    assert client.run(last.run_id).schedule == "report"
